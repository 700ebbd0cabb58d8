from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_helpers import make_net
from torch import nn

from nat2deploy.deploy.bench import bench
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.zipped import pack
from nat2deploy.engines.cores import available_cores
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.errors import UserError
from nat2deploy.target import Target


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
        assert row.throughput == pytest.approx(1e3 * batch / row.median_ms)
    known = (0.75, 12_345, 678)
    assert [(row.top1, row.macs, row.params) for row in rows] == [known, known, (None, None, None)]


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
    plain.write_bytes(b"junk")
    with pytest.raises(UserError, match="does not load"):
        bench([plain], seed=0)
    (bundle / "run.py").write_text("")
    with pytest.raises(UserError, match=r"run\.py is changed"):
        bench([bundle], seed=0)
