"""What pip installs: built from the checkout, installed by itself, and run."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import nat2deploy

BUILD = "from setuptools import build_meta; import sys; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def build(what: str, source: Path, out: Path) -> Path:
    """Build a wheel or an sdist of the folder ``source``, as pip and others do."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{what}", str(out)],
        cwd=source,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def built(repository, tmp_path_factory) -> tuple[Path, Path]:
    """The sdist of the checkout, and the wheel that is built of nothing but the sdist."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "checkout"
    left_out = shutil.ignore_patterns(
        ".*", "runs", "tests", "benchmarks", "__pycache__", "*.egg-info", "build"
    )
    shutil.copytree(repository, source, ignore=left_out)
    sdist = build("sdist", source, folder)
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.11 has it from 3.11.4 on
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    return sdist, build("wheel", unpacked, folder)


@pytest.fixture(scope="module")
def run(built, tmp_path_factory):
    """What runs a command where nothing but the wheel and the packages that it needs are installed."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, str(built[1])], check=True, env=ENVIRONMENT, capture_output=True)
    (site,) = (folder / "venv").glob("lib/python3*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(python.parent / words[0]), *words[1:]],
            cwd=folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.slow
def test_the_wheel_holds_what_the_package_needs_and_nothing_else(built, repository):
    with zipfile.ZipFile(built[1]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(repository).as_posix()
        for path in (repository / "nat2deploy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for folder in ("profiles", "latency_tables"):
        wanted |= {f"nat2deploy/{folder}/{path.name}" for path in (repository / folder).iterdir()}
    assert names == wanted


@pytest.mark.slow
def test_an_installed_wheel_runs(run):
    assert run("nat2deploy", "--version") == nat2deploy.__version__
    assert run("python", "-c", "import nat2deploy; print(nat2deploy.__file__)").count("/venv/lib/") == 1
    assert "x86-1-thread" in run("nat2deploy", "profiles")
    architecture = '{"ks": 3, "e": 3, "d": 1, "r": 32}'
    assert "params" in run("nat2deploy", "costs", "--space", "nano", "--arch", architecture)


@pytest.mark.slow
def test_the_version_is_in_one_place(run, built, repository):
    about = "from importlib.metadata import version; print(version('nat2deploy'))"
    assert run("python", "-c", about) == nat2deploy.__version__
    assert all(f"nat2deploy-{nat2deploy.__version__}" in path.name for path in built)
    stated = [
        path.relative_to(repository).as_posix()
        for path in (repository / "nat2deploy").rglob("*.py")
        if f'"{nat2deploy.__version__}"' in path.read_text(encoding="utf-8")
    ]
    assert stated == ["nat2deploy/version.py"]
