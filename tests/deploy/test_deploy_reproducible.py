"""The same inputs give the same bytes: everything but what was measured, and the whole zip without that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from deploy_helpers import export_net, make_images

from nat2deploy.target import Target


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_only_the_evidence_differs_between_two_exports(tmp_path: Path, precision: str) -> None:
    more = {"calibration_images": make_images(40)} if precision == "int8" else {}
    for name in ("one", "two"):
        export_net(tmp_path / name, target=Target(precision=precision), **more)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == ["evidence.json"]


def test_without_measuring_the_whole_zip_is_the_same_in_another_process_and_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from deploy_helpers import export_net; "
        "export_net(Path(sys.argv[1]), time_limit_s=None)"
    )
    paths = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        paths.append(folder / "out.zip")
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "TZ": f"UTC+{seed}",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
        }
        words = [sys.executable, "-c", code, str(paths[-1])]
        subprocess.run(words, check=True, env=environment, cwd=folder, timeout=120)
    assert paths[0].read_bytes() == paths[1].read_bytes()
