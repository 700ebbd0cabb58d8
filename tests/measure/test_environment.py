import os
import subprocess
import sys

import pytest
import torch

from nat2deploy.engines.cores import available_cores, cores_for
from nat2deploy.errors import UserError
from nat2deploy.measure import pinning
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.pinning import load_warning, pinned_cores
from nat2deploy.target import Target


def test_the_calling_thread_gets_one_core_and_all_is_restored():
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with pinned_threads(Target(threads=1)):
        assert os.sched_getaffinity(0) == set(cores_for(1))
        assert torch.get_num_threads() == 1
    assert os.sched_getaffinity(0) == before
    assert torch.get_num_threads() == threads


def test_pytorch_gets_all_the_targets_cores_and_onnxruntime_the_first(monkeypatch):
    pinned = []
    monkeypatch.setattr(pinning, "available_cores", lambda: 4)
    monkeypatch.setattr(pinning, "cores_for", lambda threads: (3, 1, 2)[:threads])
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: pinned.append(set(cores)))
    for backend in ("torch", "onnxruntime"):
        with pinned_threads(Target(threads=2, backend=backend)):
            assert torch.get_num_threads() == (2 if backend == "torch" else 1)
    assert pinned == [{3, 1}, {0, 1, 2, 3}, {3}, {0, 1, 2, 3}]


def test_all_is_restored_after_an_error():
    before = os.sched_getaffinity(0)
    with pytest.raises(RuntimeError), pinned_threads(Target(threads=1)):
        raise RuntimeError
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(len(cores_for(2)) < 2, reason="one core, or a system that cannot pin threads")
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_pytorchs_workers_are_not_left_on_the_targets_cores(backend):
    """In a process of its own: PyTorch's workers stay for as long as it lives."""
    script = """
import os, sys
import torch
from nat2deploy.measure import pinning
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.target import Target
before, allowed = set(os.listdir("/proc/self/task")), os.sched_getaffinity(0)
pinning.cores_for = lambda threads: sorted(allowed)[:1] * threads
torch.set_num_threads(2)
with pinned_threads(Target(threads=2, backend=sys.argv[1])), torch.no_grad():
    torch.nn.Conv2d(32, 32, 3)(torch.randn(8, 32, 32, 32))
made = set(os.listdir("/proc/self/task")) - before
print(len(made), all(os.sched_getaffinity(int(thread)) == allowed for thread in made))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, backend],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    count, free = done.stdout.split()
    assert free == "True"
    assert backend == "onnxruntime" or int(count) > 0


def test_a_worker_that_is_bound_to_a_core_of_its_own_stays_there(monkeypatch):
    pinned, threads = [], [{1}, {1, 7, 8, 9}]
    cores = {7: {2, 3}, 8: {3}}
    monkeypatch.setattr(pinning, "available_cores", lambda: 4)
    monkeypatch.setattr(pinning, "cores_for", lambda threads: (3, 2)[:threads])
    monkeypatch.setattr(pinning, "_threads", lambda: threads.pop(0))

    def affinity(thread):
        if thread == 9:
            raise ProcessLookupError
        return cores.get(thread, {0, 1, 2, 3})

    monkeypatch.setattr(os, "sched_getaffinity", affinity)
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cores: pinned.append((thread, set(cores))))
    with pinned_cores(2, all_cores=True):
        pass
    assert pinned == [(0, {2, 3}), (0, {0, 1, 2, 3}), (7, {0, 1, 2, 3})]


def test_where_the_system_denies_pinning_nothing_is_pinned(monkeypatch):
    def deny(process, cores):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", deny)
    before = os.sched_getaffinity(0)
    for all_cores in (False, True):
        with pinned_cores(1, all_cores=all_cores):
            assert os.sched_getaffinity(0) == before


def test_where_nothing_can_be_pinned_only_the_thread_count_is_set(monkeypatch):
    monkeypatch.setattr(pinning, "cores_for", lambda threads: ())
    monkeypatch.setattr(os, "sched_setaffinity", None)
    with pinned_threads(Target(threads=1)):
        assert torch.get_num_threads() == 1


def test_more_threads_than_cores_are_refused():
    with pytest.raises(UserError, match=f"may use {available_cores()} core"):
        pinned_threads(Target(threads=available_cores() + 1)).__enter__()


@pytest.mark.parametrize(
    ("load", "cores", "busy"), [(0.2, 1, False), (0.9, 4, False), (1.1, 4, True), (2, 1, True)]
)
def test_load_warning(monkeypatch, load, cores, busy):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    warning = load_warning()
    assert (warning is not None) is busy
    if warning is not None:
        assert f"load average {load:.1f}" in warning
        assert ("1 core;" in warning) is (cores == 1)


def test_a_load_that_the_system_hides_is_no_warning(monkeypatch):
    def hidden():
        raise OSError("Load averages are unobtainable")

    monkeypatch.setattr(os, "getloadavg", hidden)
    assert load_warning() is None
    monkeypatch.delattr(os, "getloadavg")
    assert load_warning() is None
