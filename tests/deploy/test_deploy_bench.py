from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from deploy_helpers import make_net
from PIL import Image
from torch import nn

from nat2deploy.data.load import load_data
from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.bench import bench as run_bench
from nat2deploy.deploy.judging import Labelled
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.zipped import pack
from nat2deploy.engines.cores import available_cores
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.errors import UserError
from nat2deploy.target import Target


def bench(words, **options):  # type: ignore[no-untyped-def]
    return run_bench([str(word) for word in words], **options)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """An ONNX file with a batch of four and a little more work than the bundle's network."""
    path = tmp_path / "plain.onnx"
    path.write_bytes(to_onnx(nn.Sequential(nn.Conv2d(3, 3, 5, padding=2), make_net()), (4, 3, 16, 16)))
    return path


def test_bundles_zips_and_plain_files_side_by_side(exported: Path, plain: Path, tmp_path: Path) -> None:
    pack(exported, tmp_path / "tiny.zip")
    told: list[float] = []
    rows = bench(
        [exported, tmp_path / "tiny.zip", plain],
        seed=0,
        time_limit_s=0.5,
        progress=lambda share, text: told.append(share),
    )
    assert [row.name for row in rows] == ["tiny", "tiny.zip", "plain.onnx"]
    assert told and max(told) <= 1.0
    for row, batch in zip(rows, (1, 1, 4), strict=True):
        assert 0 < row.ci_low_ms <= row.median_ms <= row.ci_high_ms
        assert row.median_ms <= row.p95_ms <= row.p99_ms
        assert row.p95_low_ms <= row.p95_ms <= row.p95_high_ms <= row.p99_high_ms
        assert row.p99_low_ms <= row.p99_ms <= row.p99_high_ms
        assert row.throughput == pytest.approx(1e3 * batch / row.median_ms)
        assert row.throughput_low <= row.throughput <= row.throughput_high
        # A process with torch inside, as this one is, would need more.
        assert 10 < row.peak_memory_low_mb <= row.peak_memory_mb <= row.peak_memory_high_mb < 200
    assert [(row.macs, row.params) for row in rows] == [(12_345, 678), (12_345, 678), (None, None)]
    assert rows[0].accuracy == rows[1].accuracy and rows[2].accuracy is None
    stated = rows[0].accuracy
    assert stated is not None and (stated.dataset, stated.images, stated.top1) == ("digits", 40, 0.75)
    assert 0.5 < stated.low < 0.75 < stated.high < 0.9


def test_a_slower_network_is_slower(exported: Path, plain: Path) -> None:
    small, large = bench([exported, plain], seed=1, time_limit_s=0.5)
    assert small.median_ms < large.median_ms


def test_names_stay_apart(exported: Path, bundle: Path) -> None:
    rows = bench([exported, bundle, bundle], seed=0, time_limit_s=0.3)
    assert [row.name for row in rows] == [str(exported), f"{bundle} (1)", f"{bundle} (2)"]


def test_bundles_for_other_thread_counts_need_a_common_one(
    export: Callable[..., Manifest], exported: Path, tmp_path: Path
) -> None:
    if available_cores() < 2:
        pytest.skip("needs two cores")
    export(target=Target(threads=2))
    with pytest.raises(UserError, match="--threads"):
        bench([exported, tmp_path / "out"], seed=0)
    assert len(bench([exported, tmp_path / "out"], seed=0, threads=1, time_limit_s=0.3)) == 2


def test_bad_input_is_one_line(bundle: Path, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name bundles"):
        bench([], seed=0)
    with pytest.raises(UserError, match="check the path"):
        bench([tmp_path / "nowhere.zip"], seed=0)
    with pytest.raises(UserError, match="check the path"):
        bench([tmp_path / "nowhere.onnx"], seed=0)
    with pytest.raises(UserError, match="threads"):
        bench([plain], seed=0, threads=5000)
    told: list[str] = []
    with pytest.raises(UserError, match="this process may use"):
        bench([plain], seed=0, threads=1000, progress=lambda share, text: told.append(text))
    assert told == []  # before anything is measured
    plain.write_bytes(b"junk")
    with pytest.raises(UserError, match="does not load"):
        bench([plain], seed=0)
    (bundle / "run.py").write_text("")
    with pytest.raises(UserError, match=r"run\.py is changed"):
        bench([bundle], seed=0)


def test_torchvisions_networks_run_beside_ours(exported: Path) -> None:
    ours, theirs = bench([exported, "torchvision:squeezenet1_1@32"], seed=0, time_limit_s=0.5)
    assert theirs.name == "torchvision:squeezenet1_1@32" and theirs.params == 1_235_496
    assert theirs.accuracy is None and ours.median_ms < theirs.median_ms


@pytest.mark.parametrize("given", ["", "0", "00", "-1", "99999", "large"])
def test_a_resolution_that_is_none_is_blamed_itself(given: str) -> None:
    with pytest.raises(UserError, match=rf"resnet18@{given}': '{given}' is no resolution; write 1 to 9999"):
        bench([f"torchvision:resnet18@{given}"], seed=0)


@pytest.mark.parametrize("name", ["torchvision:resnet999", "torchvision:resnet999@0", "torchvision:"])
def test_a_name_that_torchvision_has_not_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match="no torchvision classifier"):
        bench([name], seed=0)


def test_accuracy_is_measured_in_the_engine_on_the_test_split(
    export: Callable[..., Manifest], tmp_path: Path
) -> None:
    data = load_data("digits")
    module = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10)).eval()
    preprocessing = Preprocessing(resolution=16, mean=data.mean, std=data.std)
    export(module=module, labels=data.labels, preprocessing=preprocessing)
    (row,) = bench([tmp_path / "out"], seed=0, time_limit_s=0.3, data="digits")
    inputs = preprocessing.apply(data.test.images)
    expected = float((module(inputs).argmax(1) == data.test.targets).float().mean())
    assert row.accuracy is not None and row.accuracy.images == len(data.test)
    assert row.accuracy.top1 == pytest.approx(expected, abs=0.006)
    assert row.accuracy.low < row.accuracy.top1 < row.accuracy.high


def test_data_of_other_classes_is_refused(exported: Path) -> None:
    with pytest.raises(UserError, match="none of the networks is a bundle of its classes"):
        bench([exported], seed=0, data="digits")


def test_data_without_a_bundle_is_refused(plain: Path) -> None:
    with pytest.raises(UserError, match="none of the networks is a bundle of its classes"):
        bench([plain], seed=0, data="digits")


def test_photos_are_judged_as_large_as_at_the_export(export: Callable[..., Manifest], tmp_path: Path) -> None:
    """Noise, so that a network says something else of the same photo at another size."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 30)):
        for label in ("left", "right"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                photo = rng.integers(0, 256, (150, 160, 3), dtype=np.uint8)
                Image.fromarray(photo).save(folder / f"{index}.png")
    spec, stated = f"imagefolder:{tmp_path / 'photos'}", []
    for size in (128, 32):
        data = load_data(spec, base_resolution=size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2)).eval()
        manifest = export(
            tmp_path / f"of-{size}",
            module=module,
            labels=data.labels,
            preprocessing=Preprocessing(resolution=24, mean=data.mean, std=data.std),
            reference_images=data.validation.images,
            test=Labelled("photos", data.test.images, data.test.targets),
        )
        assert manifest.evidence.accuracy is not None
        stated.append(manifest.evidence.accuracy.top1)
    assert stated[0] != stated[1]
    rows = bench([tmp_path / "of-128", tmp_path / "of-32"], seed=0, time_limit_s=0.3, data=spec)
    assert [row.accuracy and row.accuracy.top1 for row in rows] == stated
