"""Both TensorRT packages have every name that our code uses; neither needs a GPU to say so."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FILES = (
    "engines/tensorrt.py",
    "engines/tensorrt_plan.py",
    "engines/tensorrt_build.py",
    "deploy/runner/tensorrt.py",
)
OWNERS = {
    "trt": "",
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "engine": "ICudaEngine",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
    "self._runtime": "Runtime",
    "context": "IExecutionContext",
    "runtime": "Runtime",
}
ONLY_RTX = (
    "BuilderFlag.REQUIRE_USER_ALLOCATION",
    "ComputeCapability",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
)


def used_names(repository: Path) -> set[str]:
    """Such as ``IBuilderConfig.set_flag``, of every attribute that our code takes from the packages."""
    found = set()
    for name in FILES:
        tree = ast.parse((repository / "nat2deploy" / name).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner, _, path = ast.unparse(node).rpartition(".")
                base = owner.split(".")
                if owner in OWNERS:
                    found.add(f"{OWNERS[owner]}.{path}".lstrip("."))
                elif base[0] == "trt":
                    found.add(".".join([*base[1:], path]))
    return found - {"__version__"}


def missing(module: str, names: set[str], environment: dict[str, str] | None = None) -> list[str]:
    """Which names a package lacks; asked in a process of its own."""
    code = (
        "import importlib, json, sys\n"
        "from functools import reduce\n"
        f"module = importlib.import_module({module!r})\n"
        "def has(name):\n"
        "    try:\n        reduce(getattr, name.split('.'), module)\n"
        "    except AttributeError:\n        return False\n"
        "    return True\n"
        "print(json.dumps([name for name in json.load(sys.stdin) if not has(name)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(sorted(names)),
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_names_are_found(repository):
    names = used_names(repository)
    assert {
        "Builder",
        "ILogger",
        "BuilderFlag.TF32",
        "OnnxParser.parse",
        "ICudaEngine.num_io_tensors",
    } <= names
    assert {"IExecutionContext.execute_async_v3", "Runtime.deserialize_cuda_engine", "DataType.HALF"} <= names
    assert {"IExecutionContext.set_input_shape", "ICudaEngine.create_execution_context"} <= names
    assert set(ONLY_RTX) <= names


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
def test_tensorrt_for_rtx_has_them(repository):
    assert missing("tensorrt_rtx", used_names(repository)) == []
    assert missing("tensorrt_rtx", {"Builder", "Builder.nothing"}) == ["Builder.nothing"]
    assert missing("tensorrt_rtx", {"IExecutionContext.is_stream_capturable"}) == []


@pytest.mark.skipif(find_spec("tensorrt_bindings") is None, reason="TensorRT's bindings are not installed")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to stand in for the libraries")
def test_tensorrt_has_them(repository, tmp_path):
    """The bindings alone: libraries with the symbols that they look for, and nothing behind them."""
    bindings = Path(find_spec("tensorrt_bindings").origin).parent / "tensorrt.so"
    data = bindings.read_bytes()
    symbols = set(
        re.findall(rb"\b(?:create\w+_INTERNAL|get\w*PluginRegistry|getNvOnnx\w+|initLibNv\w+)\b", data)
    )
    source = tmp_path / "stand_in.c"
    source.write_text("\n".join(f"int {symbol.decode()}(void) {{ return 0; }}" for symbol in symbols))
    for library in set(re.findall(rb"libnv\w+\.so\.\d+", data)):
        command = ["cc", "-shared", "-fPIC", "-o", tmp_path / library.decode(), source]
        subprocess.run(command, check=True)
    names = {name for name in used_names(repository) if not name.startswith(ONLY_RTX)}
    assert missing("tensorrt_bindings", names, {"LD_LIBRARY_PATH": str(tmp_path)}) == []
