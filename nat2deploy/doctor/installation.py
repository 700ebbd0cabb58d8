"""The installation on this machine: Python, packages, engines, folders and data sets."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import platformdirs
from packaging.requirements import Requirement

from nat2deploy.doctor.finding import Finding
from nat2deploy.engines.cores import available_cores
from nat2deploy.engines.status import available_backends, version
from nat2deploy.errors import UserError, first_line
from nat2deploy.target import Target

# What is to be checked may not be importable: it is imported inside the functions.

PACKAGE = "nat2deploy"
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
# Extras for those who work on nat2deploy itself.
_OWN_EXTRAS = ("dev", "docs")
_ROOMY_BYTES = 2 << 30
_DATA_SETS = ("digits", "fashion-mnist", "cifar10", "cifar100")
_AGREEMENT = 1e-3


def check_installation(requirements: list[str] | None = None) -> Iterator[Finding]:
    """Yield what is found of this installation, one check after the other.

    Args:
        requirements: what nat2deploy needs, as its metadata say; read there if not given.
    """
    yield _python()
    if requirements is None:
        try:
            requirements = metadata.requires(PACKAGE) or []
        except metadata.PackageNotFoundError:
            words = "runs from files that are not installed, so its packages are not checked"
            yield Finding(PACKAGE, "warning", words, "pip install -e . where they lie")
            requirements = []
    yield from check_packages(requirements)
    yield _attempt("torchvision", _operators, "install torch and torchvision that belong together")
    yield _attempt("compile", _compile, "install onnx and onnxruntime again")
    for backend in available_backends():
        words = " ".join(filter(None, (backend.version, backend.reason)))
        yield Finding(backend.name, "ok" if backend.available else "optional", words)
    yield check_folder("working folder", Path())
    yield check_folder("cache", Path(platformdirs.user_cache_dir(PACKAGE)))
    yield check_threads(os.environ.get("OMP_NUM_THREADS"), available_cores())
    for name in _DATA_SETS:
        yield _data(name)


def check_packages(requirements: list[str]) -> Iterator[Finding]:
    """Yield what is found of each package that is needed, and of each extra as a whole."""
    extras: dict[str, list[Requirement]] = defaultdict(list)
    for requirement in map(Requirement, requirements):
        marker = str(requirement.marker or "")
        extra = _EXTRA.search(marker)
        if extra is not None:
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra[1]})
            if extra[1] not in _OWN_EXTRAS and applies and requirement.name != PACKAGE:
                extras[extra[1]].append(requirement)
        elif requirement.marker is None or requirement.marker.evaluate():
            problem = _problem(requirement)
            words = problem or _version(requirement.name)
            remedy = f"pip install '{requirement.name}{requirement.specifier}'" if problem else ""
            yield Finding(requirement.name, "failure" if problem else "ok", words, remedy)
    for extra_name, wanted in sorted(extras.items()):
        problems = [f"{one.name} {problem}" for one in wanted if (problem := _problem(one))]
        if problems:
            remedy = f"pip install '{PACKAGE}[{extra_name}]', if you need it"
            yield Finding(f"extra {extra_name}", "optional", ", ".join(problems), remedy)
        else:
            versions = ", ".join(f"{one.name} {_version(one.name)}" for one in wanted)
            yield Finding(f"extra {extra_name}", "ok", versions)


def check_folder(name: str, folder: Path) -> Finding:
    """Find whether files can be written to a folder, or made there, and whether there is room."""
    try:
        exists = folder.absolute()  # that fails, too, where the working folder was removed
        while not exists.exists() and exists != exists.parent:
            exists = exists.parent
        with tempfile.TemporaryFile(dir=exists):
            free_bytes = shutil.disk_usage(exists).free
    except OSError as error:
        return Finding(
            name, "failure", f"{folder} cannot be written ({error.strerror})", "choose another, or mend it"
        )
    words = f"{folder.absolute()}, {free_bytes / 1e9:.1f} GB free"
    if free_bytes < _ROOMY_BYTES:
        return Finding(name, "warning", words, "runs take up to some GB; make room")
    return Finding(name, "ok", words)


def check_threads(given: str | None, cores: int) -> Finding:
    """Find whether ``OMP_NUM_THREADS`` leaves cores idle or shares them."""
    many = "core" if cores == 1 else "cores"
    if given is None:
        return Finding("threads", "ok", f"{cores} {many} for this process")
    if not given.isdigit() or int(given) == cores:
        return Finding("threads", "ok", f"OMP_NUM_THREADS={given}, {cores} {many} for this process")
    slow = "leaves cores idle in training" if int(given) < cores else "is more than there are, which is slow"
    return Finding("threads", "warning", f"OMP_NUM_THREADS={given} on {cores} {many} {slow}", "unset it")


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}")


def _problem(requirement: Requirement) -> str:
    """What is wrong with a package; empty when nothing is."""
    found = _version(requirement.name)
    if not found:
        return "is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return ""
    return f"is {found}, {requirement.specifier} is needed"


def _version(package: str) -> str:
    """A package's version, or that of its form for GPUs, which takes its place; empty where there is none."""
    return version(package) or version(f"{package}-gpu")


def _attempt(name: str, check: Callable[[], str], remedy: str) -> Finding:
    """Run a check that may fail in any way: a broken package raises what it likes."""
    try:
        return Finding(name, "ok", check())
    except Exception as error:
        return Finding(name, "failure", first_line(error), remedy)


def _operators() -> str:
    """A wheel for another torch imports, and has no operators."""
    import torch
    from torchvision.ops import nms

    nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    return "its operators run in this torch"


def _compile() -> str:
    from nat2deploy.measure.groups import Reference
    from nat2deploy.measure.workloads import compile_candidate

    candidate = Reference()
    target = Target()
    engine = compile_candidate(candidate, target)
    images = np.random.default_rng(0).standard_normal(engine.input_shape).astype(np.float32)
    import torch

    with torch.inference_mode():
        expected = candidate.build()(torch.from_numpy(images)).numpy()
    error = float(np.abs(engine.run(images) - expected).max() / np.abs(expected).max())
    if not error < _AGREEMENT:
        raise UserError(f"{target.backend} differs from PyTorch by {error:.2g} of the largest output")
    return f"PyTorch to ONNX to {target.backend}, outputs within {error:.1g} of each other"


def _data(name: str) -> Finding:
    try:
        from nat2deploy.data.load import load_data

        data = load_data(name)
    except (UserError, ImportError, OSError) as error:
        return Finding(f"data {name}", "optional", first_line(error))
    splits = (data.train, data.validation, data.test)
    return Finding(f"data {name}", "ok", " + ".join(str(len(split)) for split in splits) + " images")
