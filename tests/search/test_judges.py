"""Judges: whoever judges, the accuracies and the archive are the same."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import torch
from small_searches import SETTINGS, Listener, result

from nat2deploy.errors import UserError
from nat2deploy.search.judges import processes
from nat2deploy.search.judges.automatic import OnceItPays
from nat2deploy.search.judges.base import InProcess, Job, evaluator_options, in_process
from nat2deploy.search.judges.images import load_images, save_images
from nat2deploy.search.judges.opening import open_judge
from nat2deploy.search.judges.processes import LocalProcesses
from nat2deploy.space.sampling import random_architectures
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.network import SuperNetwork

OPTIONS = evaluator_options(SETTINGS)


@dataclass
class Held:
    """Weights as a search has them."""

    path: Path
    version: int
    supernet: SuperNetwork


@pytest.fixture(scope="module")
def weights(source) -> Held:
    # Of a version that no search here comes to: workers load weights anew where their version is another.
    return Held(source, 100, load_supernet(source)[0])


@pytest.fixture(scope="module")
def jobs(encoding) -> list[Job]:
    import numpy as np

    return [Job(a) for a in random_architectures(encoding, np.random.default_rng(0), 9)]


@pytest.fixture(scope="module")
def alone(digits, weights, jobs):
    """What one process finds."""
    return list(in_process(digits, OPTIONS).judge(weights, jobs))


@pytest.fixture(scope="module")
def pair(digits, tmp_path_factory):
    """Two workers, which the tests of this module share."""
    with LocalProcesses(2, digits, OPTIONS, tmp_path_factory.mktemp("pair")) as judge:
        yield judge


def pids(judge) -> list[int]:
    return [worker.process.pid for worker in judge._workers]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true, seconds=60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


def test_two_processes_find_what_one_does_in_the_same_order(pair, weights, jobs, alone):
    assert len({found.accuracy.loss for found in alone}) == len(jobs)
    assert list(pair.judge(weights, jobs)) == alone
    assert len(pids(pair)) == 2


def test_weights_and_images_are_mapped_and_not_copied(pair, weights, jobs):
    list(pair.judge(weights, jobs[:2]))
    for pid in pids(pair):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert str(weights.path) in maps and str(pair.images) in maps


def test_threads_make_no_difference(digits, weights, jobs, alone):
    torch.set_num_threads(3)
    try:
        assert list(in_process(digits, OPTIONS).judge(weights, jobs)) == alone
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_processes_take_over_in_the_middle_once_they_pay(digits, weights, jobs, alone, tmp_path):
    with OnceItPays(2, digits, OPTIONS, tmp_path, pays_after_s=60) as judge:
        found = judge.judge(weights, jobs)
        assert list(islice(found, 3)) == alone[:3]
        assert judge.judged_s > 0 and pids(judge.processes) == []
        judge.pays_after_s = 0
        assert list(found) == alone[3:]
        assert len(pids(judge.processes)) == 2
        assert list(judge.judge(weights, jobs)) == alone
    assert pids(judge.processes) == [] and list(tmp_path.iterdir()) == []


def test_automatic_means_as_many_processes_as_threads(digits, tmp_path):
    assert isinstance(open_judge("auto", digits, OPTIONS, tmp_path), InProcess)
    torch.set_num_threads(3)
    try:
        judge = open_judge("auto", digits, OPTIONS, tmp_path)
    finally:
        torch.set_num_threads(1)
    assert isinstance(judge, OnceItPays) and judge.processes.count == 3


def test_a_batch_that_is_left_does_not_disturb_the_next(pair, weights, jobs, alone):
    left = pair.judge(weights, jobs)
    assert list(islice(left, 2)) == alone[:2]
    left.close()
    assert list(pair.judge(weights, jobs[::-1])) == alone[::-1]


def test_another_version_of_the_weights_is_loaded(pair, digits, weights, foreign_source, jobs, alone):
    supernet = load_supernet(foreign_source)[0].with_classes(10, 0).eval()
    from nat2deploy.supernet.checkpoint import save_supernet

    path = pair.images.with_name("next.safetensors")
    save_supernet(path, supernet, load_supernet(weights.path)[1])
    other = Held(path, 101, supernet)
    found = list(pair.judge(other, jobs))
    assert found == list(in_process(digits, OPTIONS).judge(other, jobs)) != alone
    assert list(pair.judge(weights, jobs)) == alone


def test_a_search_with_workers_leaves_what_one_process_does(
    undisturbed, begin, pair, foreign_source, tmp_path
):
    stop = Listener(lambda s, _: (s.stage, s.round, s.done) == ("archive", 0, 4))
    search = begin(tmp_path, listener=stop, of=foreign_source)
    search.judge = pair
    with pytest.raises(KeyboardInterrupt):
        search.run()
    again = begin(tmp_path, of=foreign_source)
    again.judge = pair
    assert again.run() == undisturbed[1]
    assert result(tmp_path) == result(undisturbed[0])


def test_a_worker_that_is_killed_is_replaced_and_its_job_done_again(pair, weights, jobs, alone, caplog):
    list(pair.judge(weights, jobs[:2]))
    before = pids(pair)
    found = []
    with caplog.at_level(logging.WARNING):
        for place, one in enumerate(pair.judge(weights, jobs)):
            found.append(one)
            if place == 1:
                os.kill(before[0], signal.SIGKILL)
    assert found == alone
    list(pair.judge(weights, jobs))
    after = pids(pair)
    assert len(after) == 2 and before[0] not in after and before[1] in after
    assert [r.message.count("killed by signal 9") for r in caplog.records] == [1]


def test_workers_that_only_end_are_given_up_in_one_line(digits, weights, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    with (
        LocalProcesses(2, digits, OPTIONS, tmp_path) as judge,
        pytest.raises(UserError, match=r"4 worker processes ended .*exit code 1.*use fewer workers"),
    ):
        list(judge.judge(weights, jobs))
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_loads_hears_no_ctrl_c_and_takes_nothing_from_the_working_folder(
    digits, weights, jobs, alone, tmp_path, monkeypatch
):
    (tmp_path / "queue.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)

    def interrupt(judge):
        assert wait_until(lambda: pids(judge))
        time.sleep(0.5)
        os.kill(pids(judge)[0], signal.SIGINT)

    with LocalProcesses(1, digits, OPTIONS, tmp_path) as judge:
        thread = threading.Thread(target=interrupt, args=(judge,))
        thread.start()
        assert list(judge.judge(weights, jobs[:1])) == alone[:1]
        thread.join()


def test_what_a_worker_cannot_do_is_said_in_one_line(pair, weights, jobs, tmp_path):
    broken = Held(tmp_path / "none.safetensors", 105, weights.supernet)
    with pytest.raises(UserError, match=r"could not judge: no super-network at .*none\.safetensors"):
        list(pair.judge(broken, jobs))


def test_what_was_said_of_other_weights_does_not_end_the_next_batch(pair, weights, jobs, alone, tmp_path):
    for again in range(2):
        broken = Held(tmp_path / "none.safetensors", 106 + again, weights.supernet)
        with pytest.raises(UserError, match="no super-network at"):
            list(pair.judge(broken, jobs))
        assert list(pair.judge(weights, jobs)) == alone


def test_images_come_back_as_they_were(digits, tmp_path):
    save_images(digits, tmp_path / "images")
    held = load_images(tmp_path / "images")
    for name in ("train", "validation"):
        assert getattr(held, name).fingerprint() == getattr(digits, name).fingerprint()
    assert (held.name, held.labels, held.normalisation, held.augment) == (
        digits.name,
        digits.labels,
        digits.normalisation,
        digits.augment,
    )
    assert len(held.test) == 0
    (tmp_path / "images").write_bytes(b"x")
    with pytest.raises(UserError, match="images"):
        load_images(tmp_path / "images")


PROGRAM = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from nat2deploy.search.judges.images import load_images
from nat2deploy.search.judges.base import Job
from nat2deploy.search.judges.processes import LocalProcesses
from nat2deploy.supernet.checkpoint import load_supernet
folder, source = map(Path, sys.argv[1:3])
@dataclass
class Held:
    path = source
    version = 0
    supernet = load_supernet(source)[0]
options = dict(seed=0, recalibration_images=60, validation_images=None)
with LocalProcesses(2, load_images(folder / "images"), options, folder) as judge:
    jobs = [Job(Held.supernet.space.largest())] * 100_000
    for n, _ in enumerate(judge.judge(Held, jobs)):
        if n == 1:
            print(*(w.process.pid for w in judge._workers), flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_search(digits, source, tmp_path, how):
    save_images(digits, tmp_path / "images")
    package = Path(processes.__file__).parents[3]
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert len(workers) == 2 and all(map(lives, workers))
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)  # as a terminal does
        else:
            parent.kill()
        parent.wait(60)
        parent.stdout.close()
        assert wait_until(lambda: not any(map(lives, workers)))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
    assert (tmp_path / ".images.tmp").exists() == (how == signal.SIGKILL)


@pytest.mark.parametrize(
    "short", [lambda: bytearray(1 << 60), lambda: torch.empty(1 << 60, dtype=torch.uint8)]
)
def test_memory_that_runs_out_is_said_of_the_architecture(digits, weights, jobs, alone, monkeypatch, short):
    judge = in_process(digits, OPTIONS)
    network = judge.evaluator.network

    def built(supernet, architecture):
        if architecture == jobs[1].architecture:
            short()
        return network(supernet, architecture)

    monkeypatch.setattr(judge.evaluator, "network", built)
    found = judge.judge(weights, jobs)
    assert next(found) == alone[0]
    with pytest.raises(UserError, match=f"memory ran out while judging {jobs[1].architecture.id}"):
        next(found)
