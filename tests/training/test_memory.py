"""Freed memory stays with the process: seen in glibc's own counters, in a process of its own."""

import ctypes
import subprocess
import sys

import pytest

COUNT = """
import ctypes, sys
import torch
from nat2deploy.training.memory import keep_freed_memory

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

if sys.argv[1] == "keep":
    assert keep_freed_memory() and keep_freed_memory()
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
before = mallinfo().hblks
held = [torch.empty(4 * 2**20) for _ in range(3)]
print(mallinfo().hblks - before)
"""


def mapped(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 or newer only")
def test_large_blocks_are_no_longer_mapped_one_by_one():
    assert mapped("leave") == 3
    assert mapped("keep") == 0
