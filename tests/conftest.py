"""What all tests share: one torch thread, hypothesis without deadlines, a small space with every choice."""

import fcntl
import gc
import importlib
import os
import pickle
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from hypothesis import HealthCheck, settings

from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.target import Target

# Networks in tests are tiny: a second thread gains nothing, and costs much where tests share the cores. Programs
# that tests start, and pytest's workers, learn it from the environment.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# A shell starts jobs in the background with Ctrl-C ignored, which programs that tests interrupt would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tables are as wide as where nobody looks, whatever the terminal or the test runner says.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

T = TypeVar("T")

settings.register_profile(
    "nat2deploy",
    deadline=None,
    max_examples=50,
    derandomize="CI" in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("nat2deploy")


def pytest_collection_modifyitems(items):
    """Put files that hold slow tests first, so that no worker is left alone with one at the end.

    Of those that need the ``outcome`` which one worker makes for all, one is among the first: no other waits.
    Skip tests marked ``gpu`` where PyTorch sees none.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    need = list(
        dict.fromkeys(item.path for item in items if "outcome" in item.fixturenames and item.path in slow)
    )
    later = set(need[1:])
    items.sort(key=lambda item: (item.path not in slow, item.path in later))  # stable: files stay whole
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="PyTorch sees no GPU here"))


def pytest_collection_finish():
    """Keep what is loaded by now out of garbage collection: each measurement collects, a third of a second long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # tests make many small objects, and few cycles


# Three kernels, an expansion of 1 beside broken ones, squeeze-and-excite on and off, equal neighbours.
TINY = """
name = "tiny"
resolutions = [16, 24]
widths = [0.5, 1.0]
kernels = [3, 5, 7]
expansions = [1, 2.5, 4]
depths = [1, 2, 3]

[stem]
channels = 16
stride = 2
activation = "hswish"

[first_block]
channels = 16
kernel = 3
activation = "relu"

[[stages]]
channels = 16
stride = 1
se = true
activation = "hswish"

[[stages]]
channels = 24
stride = 2
se = false
activation = "relu"

[head]
expansion = 2
features = 3
activation = "hswish"
"""


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], T]], T]:
    """What makes something in a folder of that name once for all of pytest's workers; they only read there."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made(name: str, make: Callable[[Path], T]) -> T:
        folder, value = root / name, root / f"{name}.pickle"
        with (root / f"{name}.lock").open("w") as lock:  # ends with its process, too
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not value.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that died
                folder.mkdir()
                value.with_suffix(".part").write_bytes(pickle.dumps(make(folder)))
                value.with_suffix(".part").rename(value)
        found: T = pickle.loads(value.read_bytes())  # what this very run wrote
        return found

    return made


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds the package, the profiles and the tests."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def tiny_space_toml() -> str:
    """The text of a user's own space."""
    return TINY


@pytest.fixture(scope="session")
def tiny_space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    """A user's own space, read from its file."""
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return load_space(str(path))


@pytest.fixture(scope="session")
def load_fashion_mnist() -> Callable[..., ImageData]:
    """What loads the real set; it skips where that is not installed, and for no other reason."""

    def load(**options: int) -> ImageData:
        try:
            return load_data("fashion-mnist", **options)
        except UserError as error:
            if "data set fashion-mnist is not here" not in str(error):
                raise
            pytest.skip(str(error))

    return load


@pytest.fixture(scope="session")
def needs_backend() -> Callable[[Target], None]:
    """What skips a test for a GPU whose backend is not installed, or does not know that GPU."""

    def check(target: Target) -> None:
        module = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}.get(target.backend)
        if module and find_spec(module) is None:
            pytest.skip(f"{target.backend} is not installed")
        if target.backend == "onnxruntime":
            import onnxruntime

            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                pytest.skip("onnxruntime-gpu is not installed")
        if target.backend == "tensorrt-rtx":
            capability = "SM{}{}".format(*torch.cuda.get_device_capability())
            if capability not in importlib.import_module("tensorrt_rtx").ComputeCapability.__members__:
                pytest.skip(f"TensorRT for RTX does not know {capability}")

    return check


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """What lets this process write no file beyond so many bytes: the system refuses, as on a full disk."""

    @contextmanager
    def full(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return full


@pytest.fixture(scope="session")
def tabular_info() -> Callable[..., object]:
    """What makes the description of a tabular benchmark that was never measured."""
    from fuzz.weights import benchmark_info

    return partial(benchmark_info, images=1000)


@pytest.fixture
def command(monkeypatch, capsys):
    """Run ``nat2deploy`` in this process; returns its exit code, and what it printed and complained of."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["nat2deploy", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module("nat2deploy.cli").main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run
