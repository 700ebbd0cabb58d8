import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nat2deploy.errors import UserError
from nat2deploy.supernet.checkpoint import (
    SuperNetworkInfo,
    load_supernet,
    read_metadata,
    save_supernet,
    supernet_info,
)


@pytest.fixture
def supernet(tiny_space, make_supernet):
    return make_supernet(tiny_space, 0.5, classes=4)


@pytest.fixture
def info(tiny_space):
    return SuperNetworkInfo(
        space=tiny_space,
        width=0.5,
        classes=4,
        version=3,
        data="digits",
        labels=("a", "b", "c", "d"),
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        phases=("full", "kernel"),
        recipe="r",
    )


@pytest.fixture
def path(tmp_path, supernet, info):
    path = tmp_path / "new" / "supernet.safetensors"
    save_supernet(path, supernet, info)
    return path


def rewrite(path, *, metadata=None, change=None) -> None:
    """Write the file again with another description, or with fields of it changed."""
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        value = json.loads(file.metadata()["nat2deploy"])
    save_file(state, path, metadata or {"nat2deploy": json.dumps({**value, **(change or {})})})


def test_a_super_network_comes_back_whole(path, supernet, info, tiny_space):
    loaded, told = load_supernet(path)
    assert told == supernet_info(path) == info
    assert not loaded.training
    assert loaded.state_dict().keys() == supernet.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, supernet.state_dict()[name]), name
    architecture = tiny_space.largest(16, 0.5)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded(images, architecture), supernet(images, architecture))


def test_saving_again_replaces_the_file_and_leaves_nothing_beside(path, supernet, info):
    save_supernet(path, supernet, info.model_copy(update={"version": 4}))
    assert supernet_info(path).version == 4
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_missing_file_is_a_user_error(tmp_path):
    for load in (load_supernet, supernet_info):
        with pytest.raises(UserError, match=r"no super-network at .*; check the path"):
            load(tmp_path / "absent.safetensors")
        with pytest.raises(UserError, match="no super-network at"):
            load(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_header(path):
    path.write_bytes(path.read_bytes()[:50])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("this is no network, and long enough to hold a header's length")


def endless_header(path):
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


def foreign(path):
    save_file({"weight": torch.zeros(3)}, path)


def foreign_with_metadata(path):
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})


def no_json(path):
    rewrite(path, metadata={"nat2deploy": "{"})


def deep_json(path):
    rewrite(path, metadata={"nat2deploy": "[" * 100_000})


def long_number(path):
    rewrite(path, metadata={"nat2deploy": "9" * 5000})


def no_object(path):
    rewrite(path, metadata={"nat2deploy": "[1]"})


@pytest.mark.parametrize("breaking", [cut, cut_in_header, empty, text, endless_header])
def test_what_is_no_whole_safetensors_file_is_a_user_error(path, breaking):
    breaking(path)
    for load in (load_supernet, supernet_info):
        with pytest.raises(UserError, match="is no whole safetensors file"):
            load(path)


@pytest.mark.parametrize("breaking", [foreign, foreign_with_metadata])
def test_another_programs_file_is_a_user_error(path, breaking):
    breaking(path)
    for load in (load_supernet, supernet_info):
        with pytest.raises(UserError, match="was not written by nat2deploy"):
            load(path)


@pytest.mark.parametrize("breaking", [no_json, deep_json, long_number, no_object])
def test_a_broken_description_is_a_user_error(path, breaking):
    breaking(path)
    assert read_metadata(path, "super-network")
    for load in (load_supernet, supernet_info):
        with pytest.raises(UserError, match=r"super-network .*supernet\.safetensors: "):
            load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 5}, "the weights do not fit"),
        ({"classes": 0}, "classes: "),
        ({"classes": -4}, "classes: "),
        ({"classes": 10**12}, "classes: "),
        ({"classes": "many"}, "classes: "),
        ({"width": 1.0}, "the weights do not fit"),
        ({"width": 0.75}, "has no width 0.75"),
        ({"space": "tiny"}, "space: "),
        ({"schema_version": 2}, "schema_version: "),
        ({"mean": [0.5]}, "mean.1: "),
        ({"surprise": 1}, "surprise: unknown key"),
    ],
)
def test_a_tampered_description_is_a_user_error(path, change, message):
    rewrite(path, change=change)
    with pytest.raises(UserError) as caught:
        load_supernet(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tampered_space_is_a_user_error(path, tiny_space):
    stages = tiny_space.model_dump(mode="json")["stages"]
    space = {**tiny_space.model_dump(mode="json"), "stages": [{**stages[0], "channels": 32}, stages[1]]}
    rewrite(path, change={"space": space})
    with pytest.raises(UserError, match="the weights do not fit the network it describes"):
        load_supernet(path)


@pytest.mark.parametrize("damage", ["missing", "added", "reshaped"])
def test_wrong_tensors_are_a_user_error(path, damage):
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    name = "exits.2.1.linear.weight"
    if damage == "missing":
        del state[name]
    elif damage == "added":
        state["extra"] = torch.zeros(1)
    else:
        state[name] = state[name].T.contiguous()
    save_file(state, path, metadata)
    with pytest.raises(UserError, match="the weights do not fit"):
        load_supernet(path)
    assert supernet_info(path).classes == 4
