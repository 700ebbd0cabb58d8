import os

import pytest
import torch

from nat2deploy.engines.cores import available_cores, cores_for
from nat2deploy.errors import UserError
from nat2deploy.measure import pinning
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.pinning import load_warning
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
            assert torch.get_num_threads() == 2
    assert pinned == [{3, 1}, {0, 1, 2, 3}, {3}, {0, 1, 2, 3}]


def test_all_is_restored_after_an_error():
    before = os.sched_getaffinity(0)
    with pytest.raises(RuntimeError), pinned_threads(Target(threads=1)):
        raise RuntimeError
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
