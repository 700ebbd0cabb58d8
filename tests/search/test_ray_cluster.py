"""A Ray cluster judges as one process does, also when a node of it is killed in the middle."""

from __future__ import annotations

import copy
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from small_searches import SETTINGS, result

from nat2deploy.errors import UserError
from nat2deploy.search.judges import ray_adapting, ray_cluster
from nat2deploy.search.judges.base import evaluator_options
from nat2deploy.search.judges.opening import open_judge
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.supernet import adapt

ray = pytest.importorskip("ray")
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("ray://127.0.0.1:1", "refused"),
        ("ray://127.0.0.1", "names no port; Ray's own is 10001"),
        ("ray://127.0.0.1:x", "Port could not be cast"),
    ],
)
def test_a_cluster_that_is_not_there_is_named_and_ray_not_asked(digits, tmp_path, monkeypatch, address, why):
    monkeypatch.setattr(ray_cluster, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("it tries for half a minute"))
    with pytest.raises(UserError, match=rf"{re.escape(address)}: no Ray cluster can be joined .*{why}"):
        open_judge(address, digits, evaluator_options(SETTINGS), tmp_path)


def test_a_cluster_that_has_just_been_started_is_waited_for(monkeypatch):
    with socket.socket() as later:
        later.bind(("127.0.0.1", 0))
        monkeypatch.setattr(ray_cluster.time, "sleep", lambda _: later.listen())
        ray_cluster._reach(f"ray://127.0.0.1:{later.getsockname()[1]}")


def test_what_listens_and_is_no_cluster_is_named(digits, tmp_path, monkeypatch):
    def init(**_):
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "init", init)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"ray://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(
            UserError, match=r"no Ray cluster can be joined \(ray client connection timeout\)"
        ):
            open_judge(address, digits, evaluator_options(SETTINGS), tmp_path)


def test_without_ray_it_says_how_to_install_it(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'nat2deploy\[ray\]'"):
        open_judge("ray", digits, evaluator_options(SETTINGS), tmp_path)


@pytest.mark.parametrize(
    "error", [ConnectionError("connection to the head lost\nmore"), ray.exceptions.RaySystemError("no head")]
)
def test_a_cluster_that_is_gone_is_one_line(error):
    with (
        pytest.raises(UserError, match=r"^the Ray cluster is gone .*head.*; start it, then go on$"),
        ray_cluster.cluster_there(ray),
    ):
        raise error


# With a cluster joined no other can be: what follows comes last.
@pytest.fixture(scope="module")
def cluster():
    """Two nodes on loopback, which processes join by the environment."""
    from ray.cluster_utils import Cluster

    package = str(Path(ray_cluster.__file__).parents[3])
    changes = {
        "PYTHONPATH": package,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # beside other tests they would wait for minutes
    }
    kept = {name: os.environ.get(name) for name in (*changes, "RAY_ADDRESS")}
    os.environ |= changes
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {**node, "include_dashboard": False, "ray_client_server_port": port}
    held = Cluster(initialize_head=True, head_node_args=head)
    held.joined_at = f"ray://127.0.0.1:{port}"
    held.second = held.add_node(**node)
    os.environ["RAY_ADDRESS"] = held.address
    yield held
    ray.shutdown()
    held.shutdown()
    for name, value in kept.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.mark.slow
def test_joined_by_its_address_the_archive_is_one_processs(cluster, source, tmp_path):
    """From outside of the cluster, by Ray's client: judging, adapting, judging again."""
    command = [sys.executable, "-m", "nat2deploy", "search", "--supernet", str(source), "--data", "digits"]
    short = "--archive-size 4 --candidates 2 --rounds 1 --adapt-epochs 0.1"
    for out, workers in (("alone", "1"), ("joined", cluster.joined_at)):
        words = [*command, *short.split(), "--workers", workers, "--out", out]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, other = ((tmp_path / out / "archive.jsonl").read_text() for out in ("alone", "joined"))
    assert one == other and '"version":1' in one


def at_work(title: str, *nodes) -> list[int]:
    """Processes of nodes that run a task of that name now."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent in raylets and stat.with_name("cmdline").read_text().startswith(f"ray::{title}"):
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def judge(cluster, digits, tmp_path_factory):
    """A judge on both nodes; its workers, which take seconds to start, serve all searches here."""
    with open_judge("ray", digits, evaluator_options(SETTINGS), tmp_path_factory.mktemp("judge")) as held:
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        yield held
    assert not ray.is_initialized()


def keep_busy(node, until):
    """Take a node's CPU until there is a file, so that the other node has to judge."""

    def wait(file):
        while not file.exists():
            time.sleep(0.02)

    there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return ray.remote(num_cpus=1, scheduling_strategy=there)(wait).remote(until)


def kill_as_soon_as_it_judges(cluster, killed, done):
    """First a worker of the second node, then the node itself."""
    for what in ("worker", "node"):
        while not (workers := at_work("_judge", cluster.second)):
            time.sleep(0.02)  # to look through all processes takes time, too
        if what == "worker":
            os.kill(workers[0], signal.SIGKILL)
            while Path(f"/proc/{workers[0]}").exists():
                time.sleep(0.005)
        else:
            cluster.remove_node(cluster.second, allow_graceful=False)
        killed.append(what)
    done.touch()


@pytest.mark.slow
def test_with_workers_and_a_node_killed_in_the_middle_the_search_is_one_processs(
    cluster, judge, undisturbed, begin, foreign_source, tmp_path
):
    killed: list[str] = []
    kept_busy: list[object] = []
    done = tmp_path.with_suffix(".done")

    def kill(status):
        now = (status.stage, status.round, status.done)
        if now == ("adapt", 0, 2) and not killed:
            at = at_work("_take_part", *cluster.list_all_nodes())
            os.kill(at[0], signal.SIGKILL)
            killed.append("adapting")
        elif now == ("adapt", 0, 3):
            kept_busy.append(keep_busy(cluster.head_node, done))
            given = (cluster, killed, done)
            threading.Thread(target=kill_as_soon_as_it_judges, args=given, daemon=True).start()

    search = begin(tmp_path, of=foreign_source, listener=kill, judge=judge)
    search.judge = judge
    assert search.run() == undisturbed[1]
    assert killed == ["adapting", "worker", "node"]
    found, expected = result(tmp_path), result(undisturbed[0])
    assert found[:2] == expected[:2]
    ours, theirs = (load_supernet(f / "supernet.safetensors")[0] for f in (tmp_path, undisturbed[0]))
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_what_a_node_cannot_do_is_said_in_one_line(judge, begin, tmp_path, monkeypatch):
    search = begin(tmp_path)
    monkeypatch.setattr(ray_cluster, "__version__", "0.0")
    search.judge = judge
    with pytest.raises(UserError, match=r"could not judge: this node has nat2deploy .*, the search 0\.0"):
        search.run()


@pytest.fixture
def adapted(judge, digits, source):
    """Adapts weights with the cluster; returns those after it."""
    supernet = load_supernet(source)[0]
    both = [supernet.space.smallest(), supernet.space.largest()]
    settings = LoopSettings(epochs=1.0, batch_size=20, learning_rate=0.01, seed=0)

    def adapted(adapter=judge.adapter):
        weights = copy.deepcopy(supernet)
        adapter(weights, lambda step: both, digits, settings)
        return weights.state_dict()

    return adapted


def test_a_node_that_cannot_adapt_is_said_in_one_line(adapted, monkeypatch):
    monkeypatch.setattr(ray_adapting, "__version__", "0.0")
    with pytest.raises(UserError, match=r"could not adapt: this node has nat2deploy .*, the search 0\.0"):
        adapted()


def test_where_nobody_comes_it_adapts_alone(adapted, cluster, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(ray_adapting, "_COME", timedelta(seconds=1))
    busy = keep_busy(cluster.head_node, tmp_path / "done")
    while not at_work("wait", cluster.head_node) and not at_work("keep_busy", cluster.head_node):
        time.sleep(0.02)
    found = adapted()
    (tmp_path / "done").touch()
    ray.get(busy)
    assert [record.getMessage() for record in caplog.records] == [
        "of the Ray cluster's workers 0 came to adapt; these do it"
    ]
    for name, value in adapted(adapt).items():
        assert torch.equal(found[name], value), name
