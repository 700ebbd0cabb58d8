import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from devices import make_python, start_sshd


@pytest.fixture(scope="session")
def device_python(tmp_path_factory) -> Path:
    """A Python with what a device has: numpy and onnxruntime, nothing else."""
    return make_python(tmp_path_factory.mktemp("device"), "numpy", "onnxruntime")


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory, tiny_space_toml) -> Path:
    """A space of 23 blocks."""
    text = tiny_space_toml.replace("[16, 24]", "[16]").replace("[0.5, 1.0]", "[0.5]")
    text = (
        text.replace("[3, 5, 7]", "[3, 5]").replace("[1, 2.5, 4]", "[1, 2.5]").replace("[1, 2, 3]", "[1, 2]")
    )
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    """An sshd on loopback whose sessions begin in a folder of the test's."""
    running = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield running
    running.cut()
    running.process.terminate()
    running.process.wait()
