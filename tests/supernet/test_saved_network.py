import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nat2deploy.errors import UserError
from nat2deploy.supernet.saved_network import NetworkInfo, load_network, save_network


@pytest.fixture
def architecture(tiny_space):
    return tiny_space.largest(16, 0.5)


@pytest.fixture
def network(tiny_space, make_supernet, architecture):
    return make_supernet(tiny_space, 0.5, classes=3).extract(architecture)


@pytest.fixture
def info(tiny_space, architecture):
    return NetworkInfo(
        space=tiny_space,
        architecture=architecture.to_json(),
        data="digits",
        labels=("a", "b", "c"),
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    )


@pytest.fixture
def path(tmp_path, network, info):
    path = tmp_path / "network.safetensors"
    save_network(path, network, info)
    return path


def rewrite(path, **change) -> None:
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        value = json.loads(file.metadata()["nat2deploy"])
    save_file(state, path, {"nat2deploy": json.dumps({**value, **change})})


def test_a_network_comes_back_whole(path, network, info, architecture):
    loaded, told = load_network(path)
    assert told == info
    assert told.choice == architecture
    assert not loaded.training
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded(images), network(images))
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": {"ks": 3, "e": 4, "d": 9, "r": 16, "w": 0.5}}, "d 9 is not in space"),
        ({"architecture": {"ks": 3, "e": 4, "d": 1, "r": 16, "w": 0.5}}, "the weights do not fit"),
        ({"architecture": {}}, "'d' is missing"),
        ({"architecture": "largest"}, "architecture: "),
        ({"labels": ["a"]}, "the weights do not fit"),
        ({"labels": None}, "labels: "),
        ({"schema_version": 2}, "schema_version: "),
        ({"extra": 1}, "extra: unknown key"),
    ],
)
def test_a_tampered_description_is_a_user_error(path, change, message):
    rewrite(path, **change)
    with pytest.raises(UserError) as caught:
        load_network(path)
    assert message in str(caught.value)


def test_broken_files_are_user_errors(path, tmp_path):
    with pytest.raises(UserError, match="no network at"):
        load_network(tmp_path / "absent.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "bad.safetensors", {"nat2deploy": "9" * 5000})
    with pytest.raises(UserError, match="broken description"):
        load_network(tmp_path / "bad.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="was not written by nat2deploy"):
        load_network(tmp_path / "foreign.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="no whole safetensors file"):
        load_network(path)
