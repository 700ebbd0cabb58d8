"""The examples of plug-ins do what they say: real measurements by the backend, a real search by the others."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))

from small_searches import SETTINGS, save_fresh

from nat2deploy import plugins
from nat2deploy.engines.registry import compile_model, load_engine
from nat2deploy.engines.status import available_backends
from nat2deploy.errors import UserError
from nat2deploy.run.config import ProfileConfig, SearchConfig, SpaceConfig
from nat2deploy.run.profile import profile
from nat2deploy.run.search import search
from nat2deploy.search.regressors import SURROGATES
from nat2deploy.search.settings import SearchSettings
from nat2deploy.target import Target, make_target, make_targets

FOLDER = Path(__file__).parents[2] / "examples" / "extend"
FILES = ("backend.py", "surrogate.py", "policy.py")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No plug-in of another test."""
    monkeypatch.setattr(plugins, "_registered", {})
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    plugins._load_files.cache_clear()
    yield
    plugins._load_files.cache_clear()


@pytest.fixture
def by_files(monkeypatch):
    """The examples, named in the environment."""
    monkeypatch.setenv(plugins.VARIABLE, ":".join(str(FOLDER / name) for name in FILES))


def test_each_example_is_short_and_in_the_documentation():
    page = (FOLDER.parents[1] / "docs" / "how-to" / "extend.md").read_text(encoding="utf-8")
    for name in FILES:
        assert len((FOLDER / name).read_text(encoding="utf-8").splitlines()) < 80
        assert f"examples/extend/{name}" in page


def test_a_search_uses_the_examples_by_name(by_files, tiny_space, tmp_path):
    supernet = save_fresh(tmp_path / "w.safetensors", tiny_space)
    chosen = {"surrogates": ("partial-least-squares",), "initialisation": "far-apart"}
    config = SearchConfig(
        supernet=str(supernet),
        data="digits",
        budgets=("macs<=1M",),
        settings=SearchSettings(**{**SETTINGS.model_dump(), **chosen}),
    )
    front = search(config, tmp_path / "run")
    assert front.networks and all(n.costs["macs"] <= 1e6 for n in front.networks)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert {entry["surrogate"] for entry in history if entry.get("surrogate")} == {"partial-least-squares"}
    first = [json.loads(line) for line in (tmp_path / "run" / "archive.jsonl").read_text().splitlines()]
    assert (
        len({e["id"] for e in first if e["version"] == 0 and e["role"] == "archive"}) == SETTINGS.archive_size
    )
    assert 'initialisation = "far-apart"' in (tmp_path / "run" / "config.toml").read_text()


def test_a_profile_measures_with_the_examples_backend(by_files, tiny_space_toml, tmp_path):
    space = tmp_path / "tiny.toml"
    space.write_text(tiny_space_toml.replace("[16, 24]", "[16]").replace("[0.5, 1.0]", "[1.0]"))
    target = make_target("cpu", "torch-channels-last", "fp32", 1, 1)
    config = ProfileConfig(precision=0.5, time_limit_s=4, calibration_networks=8, held_out_networks=8)
    table = profile(SpaceConfig(name=str(space)), target, config, tmp_path / "t.json", seed=0)
    assert table.target == target and str(target).startswith("cpu torch-channels-last fp32")
    assert all(entry.median_ms > 0 for entry in table.entries.values()) and table.calibration is not None


def test_the_examples_backend_computes_what_pytorch_does(by_files, tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    target = Target(backend="torch-channels-last")
    engine = compile_model(module, target, (1, 3, 8, 8))
    images = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(engine.run(images), expected, atol=1e-5)
    engine.prepare(images)()
    with pytest.raises(UserError, match="lives in one process only"):
        engine.save(tmp_path / "network.pt")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="load it with backend onnxruntime"):
        load_engine(tmp_path / "network.onnx", target)


def test_devices_and_auto_know_the_backend(by_files):
    (found,) = [one for one in available_backends() if one.name == "torch-channels-last"]
    assert (
        found.available
        and "Eager PyTorch on the CPU, channels last" in found.reason
        and "cpu: fp32" in found.reason
    )
    assert "torch-channels-last" in {target.backend for target in make_targets("cpu", "fp32", 1, 1)}
    assert "torch-channels-last" not in {target.backend for target in make_targets("cpu", "int8", 1, 1)}


def test_an_installed_package_needs_no_variable(monkeypatch, tmp_path):
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "surrogate.py").write_text((FOLDER / "surrogate.py").read_text().partition("\nregister(")[0])
    info = tmp_path / "my_package-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[nat2deploy.surrogates]\npls = my_package.surrogate:KIND\nlost = my_package.surrogate:NONE\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert SearchSettings(surrogates=("pls",)).surrogates == ("pls",)
    assert SURROGATES["pls"].features == "one-hot"
    assert plugins.plugin_version("surrogate", "pls") == "1.2"
    with pytest.raises(UserError, match="'lost' of package my-package cannot be loaded: AttributeError"):
        SURROGATES["lost"]
