"""Several processes give one's result: part by part, and as ``torchrun`` runs the command."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from programs import Program
from safetensors.torch import load_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

import one_of_two

import nat2deploy
from nat2deploy.batch_norm import BatchNorm
from nat2deploy.blocks import batch_norm
from nat2deploy.cli import main
from nat2deploy.errors import UserError
from nat2deploy.launch import Launch, launched
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import supernet_info
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training.distributed import ALONE, world

# OFAv2's exits, skips and branches, with squeeze-and-excite in the second stage.
SPACE = """
name = "tiny"
exits = "one"
dense_skips = true
parallel_branches = true
resolutions = [8, 16]
widths = [1.0]
kernels = [3, 5]
expansions = [2, 3]
depths = [1, 2]
[stem]
channels = 8
stride = 2
activation = "hswish"
[first_block]
channels = 8
kernel = 3
activation = "relu"
[[stages]]
channels = 8
stride = 1
se = false
activation = "relu"
[[stages]]
channels = 16
stride = 2
se = true
activation = "hswish"
[head]
expansion = 2
features = 2
activation = "hswish"
"""
PHASES = ("full", "kernel", "branches-1", "branches-2", "exits-1", "depth-1", "expansion-1")
# Another current folder or an installed package must not come first.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(nat2deploy.__file__).parents[1]),
    "OMP_NUM_THREADS": "1",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def torchrun_environment(rank: int, size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


class Done(NamedTuple):
    """What a program did."""

    returncode: int
    stdout: str
    stderr: str


def two_of(*words: object, folder: Path) -> list[Done]:
    """Both processes of a Python program, started without torchrun's own seconds."""
    port = free_port()
    both = []
    with ExitStack() as running:
        for rank in range(2):
            prints = folder / f"process {rank}"
            prints.mkdir(exist_ok=True)
            program = Program(*words, folder=prints, changes=torchrun_environment(rank, 2, port))
            both.append(running.enter_context(program))
        return [Done(program.wait(120), *program.printed()) for program in both]


def given() -> dict[str, object]:
    """Eight images, of which the processes take five and three; means far from zero, one tiny spread."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(8, 5, 4, 3, generator=generator)
    far = torch.tensor([0.0, 1.0, 100.0, -3.0, 30.0])[:, None, None]
    spread = torch.tensor([1.0, 5.0, 0.1, 2.0, 1.0])[:, None, None]
    drift = torch.linspace(-1, 1, 8)[:, None, None, None]  # the parts' statistics differ
    probe = torch.randn(8, 5, 4, 3, generator=generator)
    return {"x": (x + drift) * spread + far, "small": x + drift, "probe": probe, "cut": 5}


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("halves")
    torch.save(given(), folder / "given.pt")
    done = two_of(one_of_two.__file__, "parts", folder, folder=folder)
    assert [process.returncode for process in done] == [0, 0], [process.stderr for process in done]
    found = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    assert [(half["rank"], half["size"]) for half in found] == [(0, 2), (1, 2)]
    return found


def joined(halves: list[dict], key: str) -> list[torch.Tensor]:
    """Output and input gradient of the whole batch, sums of the weights' gradients, the statistics."""
    (y, x, weight, bias, mean, variance), other = (half[key] for half in halves)
    assert torch.equal(mean, other[4]) and torch.equal(variance, other[5])
    return [
        torch.cat([y, other[0]]),
        torch.cat([x, other[1]]),
        weight + other[2],
        bias + other[3],
        mean,
        variance,
    ]


@pytest.mark.parametrize(
    ("key", "momentum", "run"),
    [
        ("module", 0.1, one_of_two.module_norm),
        ("channels last", 0.1, one_of_two.module_norm),
        ("mean of batches", None, one_of_two.module_norm),
        ("sliced", 0.1, one_of_two.sliced_norm),
    ],
)
def test_two_processes_normalise_as_one_with_the_whole_batch(halves, monkeypatch, key, momentum, run):
    monkeypatch.setattr(one_of_two, "normalise", torch.nn.functional.batch_norm)
    batch = given()
    # Double precision is the truth: of a channel at 100 ± 0.1 single has three digits.
    norm = one_of_two.filled(5, momentum, nn.BatchNorm2d).double()
    expected = run(norm, batch["x"].double(), batch["probe"].double())
    for found, wanted in zip(joined(halves, key), expected, strict=True):
        torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=2e-4)


def test_each_process_by_itself_would_give_another_result(halves):
    together, apart = joined(halves, "module"), [half["apart"] for half in halves]
    assert (together[0] - torch.cat([apart[0][0], apart[1][0]])).abs().max() > 0.3
    assert (apart[0][4] - apart[1][4]).abs().max() > 0.05
    assert (apart[0][5] - together[5]).abs().max() > 0.05


def test_half_precision_has_statistics_in_single(halves):
    expected = one_of_two.filled(5, 0.1, nn.BatchNorm2d)(given()["small"])
    found = torch.cat([half["half"] for half in halves])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=5e-2)


def test_in_evaluation_the_running_statistics_count(halves):
    expected = one_of_two.filled(5, 0.1, nn.BatchNorm2d).eval()(given()["x"])
    assert torch.equal(torch.cat([half["evaluated"] for half in halves]), expected)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_alone_it_is_pytorchs_to_the_last_bit(momentum):
    batch = given()
    ours, theirs = (one_of_two.filled(5, momentum, kind) for kind in (BatchNorm, nn.BatchNorm2d))
    for norm in (ours, theirs):
        norm.found = one_of_two.module_norm(norm, batch["x"], batch["probe"])
    assert all(map(torch.equal, ours.found, theirs.found))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert isinstance(batch_norm(5), BatchNorm) and isinstance(ours, nn.BatchNorm2d)


def test_each_process_takes_its_part_and_means_are_of_both(halves):
    shares = [half["share"] for half in halves]
    assert torch.equal(torch.cat([images for images, _ in shares]), given()["x"])
    assert [targets.tolist() for _, targets in shares] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for half in halves:
        assert half["average"] == 1.5
        assert half["first says"] == [True, False]
        weight, bias, *untouched = half["gradients"]
        assert torch.equal(weight, torch.full((3, 2, 2, 2), 1.5)) and bias.tolist() == [0.0, 1.5, 3.0]
        assert untouched == [None, None]
        files, batch = half["refused"]
        assert "things (0, 1)" in files and "share" in files
        assert "3 images does not divide evenly among 2 processes" in batch and "multiple of 2" in batch


def test_the_loop_ends_with_ones_weights_and_average_after_clipping(halves):
    steps, expected = one_of_two.train(ALONE)
    for half in halves:
        done, state = half["trained"]
        assert done == steps == 5
        for key, value in state.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5)
            assert torch.equal(value, halves[0]["trained"][1][key])


def test_the_first_process_clock_ends_all(halves):
    assert [half["out of time"] for half in halves] == [1, 1]


def test_alone_everything_stays_as_it_is(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with world() as ranks:
        assert ranks is ALONE
    images, targets = torch.zeros(3, 1), torch.zeros(3)
    assert all(map(torch.equal, ALONE.share(images, targets), (images, targets)))
    assert ALONE.average(2.0) == 2.0 and ALONE.first_says(True) and not ALONE.first_says(False)
    ALONE.barrier()
    ALONE.expect_same(1, "things")
    assert not torch.distributed.is_initialized()


@pytest.fixture
def second_of_three(monkeypatch):
    for name, value in torchrun_environment(1, 3, 1).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_the_launch_is_read_from_the_whole_of_torchruns_environment(second_of_three):
    assert launched() == Launch(1, 3, 1) and not launched().is_first
    second_of_three.setenv("LOCAL_RANK", "x")
    assert launched() == Launch()
    second_of_three.delenv("LOCAL_RANK")
    assert launched() == Launch() and launched().is_first


def test_a_gpu_beyond_the_last_is_refused_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="the last GPU that PyTorch sees is cuda:1"), world("cuda:9"):
        pass
    for device in ("cuda", "cuda:1"):
        with world(device) as alone:
            assert alone.size == 1


def test_a_gpu_that_is_not_there_or_not_its_own_is_refused(second_of_three):
    second_of_three.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no usable GPU"), world("cuda"):
        pass
    second_of_three.setattr(torch.cuda, "is_available", lambda: True)
    second_of_three.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="start at most 1"), world("cuda"):
        pass
    with pytest.raises(UserError, match="cuda:1 is one GPU for 3 processes"), world("cuda:1"):
        pass


def command_line(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["nat2deploy", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_other_commands_are_for_one_process(second_of_three, capsys, tmp_path):
    assert command_line(second_of_three, "devices") == 2
    assert capsys.readouterr().err.startswith(
        "error in process 1: several processes share the work of `train`"
    )


@pytest.mark.parametrize("first", [True, False])
def test_ctrl_c_is_told_of_once(second_of_three, capsys, tmp_path, first):
    from nat2deploy.run import train as front

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    second_of_three.setattr(front, "train", interrupted)
    second_of_three.setenv("RANK", "0" if first else "1")
    arguments = ("train", "--data", "digits", "--out", tmp_path / "s.safetensors")
    assert command_line(second_of_three, *arguments) == 130
    assert ("goes on where it was" in capsys.readouterr().err) is first


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder that holds the space."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "tiny.toml").write_text(SPACE)
    return folder


def arguments(work: Path, out: str) -> list[str]:
    """A training of 17 steps in seven phases, at a rate at which rounding does not grow."""
    return [
        "train", "--data", "digits", "--space", str(work / "tiny.toml"), "--epochs", "1", "--seed", "3",
        "--batch-size", "64", "--learning-rate", "0.007", "--ema", "0.5", "--clip", "1", "--sandwich",
        "--out", str(work / out),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(work) -> tuple[dict[str, torch.Tensor], subprocess.CompletedProcess[str]]:
    """The state that the command writes in two processes, and what they print."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    program = ["--master-port", str(free_port()), "-m", "nat2deploy", *arguments(work, "two.safetensors")]
    done = subprocess.run([*launcher, *program], capture_output=True, text=True, env=ENVIRONMENT, timeout=240)
    assert done.returncode == 0, done.stderr
    return load_file(work / "two.safetensors"), done


@pytest.mark.slow
def test_torchrun_gives_the_result_of_one_process(work, undisturbed, monkeypatch):
    assert command_line(monkeypatch, *arguments(work, "one.safetensors")) == 0
    one, two = load_file(work / "one.safetensors"), undisturbed[0]
    info = supernet_info(work / "two.safetensors")
    assert info == supernet_info(work / "one.safetensors") and info.phases == PHASES
    torch.manual_seed(3)
    start = SuperNetwork(load_space(str(work / "tiny.toml")), 1.0, 10).state_dict()
    assert one.keys() == two.keys() == start.keys()
    for key, value in one.items():
        # Rounding alone: in double precision they differ by 4e-15.
        torch.testing.assert_close(
            two[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )
    for key in ("stem.0.conv.weight", "exits.2.1.linear.weight", "exits.1.0.expand_bn.running_var"):
        assert float((one[key] - start[key]).abs().max()) > 5e-4, key  # far more than the tolerance


@pytest.mark.slow
def test_the_first_process_alone_prints_and_nothing_is_left_behind(work, undisturbed):
    printed = undisturbed[1]
    assert printed.stdout.count("super-network ") == 1
    assert printed.stderr.count("train 1/7 full") == 1
    assert not [path.name for path in work.iterdir() if "two" in path.name and path.name != "two.safetensors"]


@pytest.mark.slow
def test_killed_it_goes_on_at_its_step_and_ends_the_same(work, undisturbed, tmp_path):
    command = arguments(work, "again.safetensors")
    first, second = two_of(one_of_two.__file__, "killed", "depth-1", 2, *command, folder=tmp_path)
    assert first.returncode == -9
    # Nobody waits for the one that is gone.
    assert second.returncode == 2 and second.stdout == ""
    assert second.stderr.startswith("error in process 1: another process of this training ended")
    assert supernet_info(work / "again.safetensors").phases == PHASES[:5]
    assert torch.load(work / ".again.safetensors.training")["done"] == 1
    done = two_of("-m", "nat2deploy", *command, folder=tmp_path)
    assert [process.returncode for process in done] == [0, 0], [process.stderr for process in done]
    assert done[1].stdout == done[1].stderr == ""
    again = load_file(work / "again.safetensors")
    assert all(torch.equal(value, again[key]) for key, value in undisturbed[0].items())
