"""The runner on a bundle with stages: which exit answers, in a process that has numpy and onnxruntime alone."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from deploy_helpers import again
from PIL import Image
from staged_helpers import digits, export_staged, preprocessing
from test_deploy_runner_program import run_alone, run_here

from nat2deploy.deploy.exit_answers import answers_of
from nat2deploy.deploy.exit_thresholds import confidences_of, leave
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.runner.network import Network
from nat2deploy.deploy.runner.proof import bench, check
from nat2deploy.deploy.runner.refusal import BadInput
from nat2deploy.deploy.runner.server import Application
from nat2deploy.target import Target

COUNT = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "staged"
    export_staged(out, {"accuracy_drop": 0.0}, time_limit_s=None)
    return out


@pytest.fixture
def staged(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "staged"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test digits as files, in order."""
    place = tmp_path_factory.mktemp("images")
    for index, image in enumerate(digits().test.images[:COUNT].numpy()):
        Image.fromarray(image[0]).convert("RGB").save(place / f"{index:03}.png")
    return place


def wanted_exits(bundle: Path) -> tuple[list[int], list[int]]:
    """What the package itself says of the same images: exits from 1, and classes."""
    from nat2deploy.deploy.bundle import open_bundle
    from nat2deploy.deploy.opening import open_bundle_engine

    with open_bundle(bundle) as opened:
        engine, _ = open_bundle_engine(opened)
        stages = opened.manifest.stages
    answers = answers_of(engine, preprocessing(), digits().test.images[:COUNT])
    confidences = confidences_of(answers[:-1], stages.confidence)
    exits = leave(confidences, [stage.threshold for stage in stages.exits[:-1]])
    return [int(one) + 1 for one in exits], answers.argmax(2)[exits, np.arange(COUNT)].tolist()


def test_each_image_gets_the_answer_of_the_exit_that_it_leaves_at(made: Path, folder: Path) -> None:
    done = run_alone(made, folder, "--check", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    exits, classes = wanted_exits(made)
    assert len(set(exits)) > 1
    assert [image["exit"] for image in found["images"]] == exits
    assert [image["top"][0]["index"] for image in found["images"]] == classes
    assert found["check"]["ok"] and found["check"]["top1_agreement"] == 1.0


def test_people_are_told_the_exit_too(made: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exits, _ = wanted_exits(made)
    assert run_here(made, folder / "000.png") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(f"000.png  (exit {exits[0]})")
    stream = b"".join((folder / f"{index:03}.png").read_bytes() for index in range(4))
    (folder.parent / "frames").write_bytes(stream)
    assert run_here(made, "--stream", folder.parent / "frames") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(", exit ")[2] for line in lines] == [f"{one})" for one in exits[:4]]
    assert run_here(made, "--stream", folder.parent / "frames", "--json") == 0
    assert [json.loads(line)["exit"] for line in capsys.readouterr().out.splitlines()] == exits[:4]


def test_the_server_says_which_exit_answered(made: Path, folder: Path) -> None:
    data = (folder / "003.png").read_bytes()
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/classify",
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.input": io.BytesIO(data),
    }
    answer = b"".join(Application(Network(made, None), 1)(environ, lambda *_: None))
    assert json.loads(answer)["exit"] == wanted_exits(made)[0][3]


def test_stages_behind_the_exit_are_not_run(made: Path) -> None:
    network = Network(made, None)
    stages = network.stages
    assert stages is not None
    ran: list[int] = []

    def noted(number: int, run):  # type: ignore[no-untyped-def]
        def call(values):  # type: ignore[no-untyped-def]
            ran.append(number)
            return run(values)

        return call

    stages._run = [noted(number, run) for number, run in enumerate(stages._run, start=1)]
    exits, _ = wanted_exits(made)
    for image, exit_ in zip(digits().test.images[:COUNT].numpy(), exits, strict=True):
        ran.clear()
        rgb = np.broadcast_to(image.transpose(1, 2, 0), (*image.shape[1:], 3))
        assert network.answer(rgb, 1)["exit"] == exit_
        assert ran == list(range(1, exit_ + 1))


def test_in_a_batch_each_image_has_its_own_exit(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "four"
    export_staged(bundle, {"accuracy_drop": 0.0}, target=Target(batch=4), time_limit_s=None)
    stages = Network(bundle, None).stages
    assert stages is not None
    exits, classes = wanted_exits(bundle)
    inputs = preprocessing().apply(digits().test.images[:COUNT]).numpy()
    for start in range(0, COUNT, 4):
        logits, found = stages.decide(inputs[start : start + 4], 4)
        assert found == exits[start : start + 4]
        assert logits.argmax(1).tolist() == classes[start : start + 4]
    # Zeros that fill up a batch keep nobody waiting.
    full = np.zeros((4, *inputs.shape[1:]), np.float32)
    full[0] = inputs[0]
    assert stages.decide(full, 1)[1] == exits[:1]
    assert run_here(bundle, folder, "--json") == 0
    images = json.loads(capsys.readouterr().out)["images"]
    assert [image["exit"] for image in images] == exits
    assert [image["top"][0]["index"] for image in images] == classes


def test_more_threads_say_the_same(made: Path) -> None:
    image = np.ascontiguousarray(np.repeat(digits().test.images[0].numpy().transpose(1, 2, 0), 3, axis=2))
    one, two = (Network(made, threads).answer(image, 1) for threads in (1, 2))
    assert (one["exit"], one["top"][0]["label"]) == (two["exit"], two["top"][0]["label"])


def test_the_bench_times_each_exit(made: Path) -> None:
    found = bench(Network(made, None), 0.3)
    assert len(found["exits"]) == 3
    assert found["exits"][-1]["median_ms"] == found["median_ms"]
    assert found["exits"][0]["median_ms"] < found["expected_ms"] < found["median_ms"]


def test_an_exit_that_differs_from_pytorch_fails_the_check(staged: Path) -> None:
    def swapped(value: dict) -> None:
        first, second = value["stages"]["exits"][:2]
        first["weight"], second["weight"] = second["weight"], first["weight"] * 3

    again(staged, swapped)
    assert not check(Network(staged, None))["ok"]


@pytest.mark.parametrize(
    "change",
    [
        lambda stages: stages.pop("confidence"),
        lambda stages: stages.update(confidence="mood"),
        lambda stages: stages["exits"].pop(),
        lambda stages: stages["exits"][0].update(threshold="high"),
        lambda stages: stages["exits"][1].update(file="stage9.onnx"),
        lambda stages: stages["exits"][1].update(file="labels.txt"),
        lambda stages: stages.update(exits=7),
    ],
)
def test_stages_without_sense_are_one_line(staged: Path, change) -> None:  # type: ignore[no-untyped-def]
    path = staged / "manifest.json"
    value = json.loads(path.read_text())
    change(value["stages"])
    path.write_text(json.dumps(value))
    with pytest.raises(BadInput) as refused:
        Network(staged, None)
    assert "\n" not in str(refused.value)


def test_manifests_that_do_not_fit_their_stages_are_refused(staged: Path) -> None:
    value = json.loads((staged / "manifest.json").read_text())
    for change in (
        lambda stages: stages["exits"][2].update(threshold=0.5),
        lambda stages: stages["validation"].update(shares=[1.0]),
        lambda stages: stages["sweep"][0].update(thresholds=[0.5]),
        lambda stages: stages["exits"][1].update(file="../stage2.onnx"),
        lambda stages: stages["exits"][1].update(file="other.onnx"),
        lambda stages: stages.update(exits=stages["exits"][:1]),
    ):
        spoiled = json.loads(json.dumps(value))
        change(spoiled["stages"])
        with pytest.raises(ValueError):  # pydantic's
            Manifest.model_validate(spoiled)
