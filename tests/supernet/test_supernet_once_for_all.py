"""Imported Once-For-All checkpoints compute what the released package computes from the same weights."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from nat2deploy.errors import UserError
from nat2deploy.files import sha256
from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import load_supernet, save_supernet
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.supernet.once_for_all import import_once_for_all

if TYPE_CHECKING:
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

RESOLUTIONS = (128, 144, 160)
OFA = load_space("ofa-mbv3").restrict(resolutions=RESOLUTIONS)
WIDTHS = OFA.widths


def images(resolution: int) -> torch.Tensor:
    """Two images that look different from afar too: of noise alone, every pooled feature is the same."""
    generator = torch.Generator().manual_seed(resolution)
    coarse = torch.randn(2, 3, 6, 6, generator=generator)
    noise = torch.randn(2, 3, resolution, resolution, generator=generator)
    return nn.functional.interpolate(coarse, resolution, mode="bilinear") * 2 + noise


IMAGES = {resolution: images(resolution) for resolution in RESOLUTIONS}


def make_released(width: float, seed: int = 0) -> OFAMobileNetV3:
    """The released super-network with random weights, statistics and transforms."""
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3  # takes seconds

    torch.manual_seed(seed)
    theirs = OFAMobileNetV3(
        n_classes=10,
        dropout_rate=0.0,
        width_mult=width,
        ks_list=[3, 5, 7],
        expand_ratio_list=[3, 4, 6],
        depth_list=[2, 3, 4],
    )
    norms = [part for part in theirs.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            if name.endswith("_matrix"):
                tensor.add_(torch.randn_like(tensor), alpha=0.1)
            elif "depth_conv.conv.conv" in name:  # so that smaller kernels let about as much through
                tensor *= 0.3
                tensor[:, :, 2:-2, 2:-2] /= 0.3
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.2, 0.2)
            norm.momentum = 1.0
        # The images' own statistics first, or the signal dies on its way and only the last bias is compared.
        theirs.train()(IMAGES[RESOLUTIONS[0]])
        for norm in norms:
            norm.running_mean += torch.randn_like(norm.running_mean) * norm.running_var.sqrt() * 0.1
            norm.running_var *= torch.rand_like(norm.running_var) * 0.4 + 0.9
            norm.momentum = 0.1
        linear = theirs.eval().classifier.linear
        linear.weight /= (theirs(IMAGES[RESOLUTIONS[0]]) - linear.bias).std()
    return theirs


@pytest.fixture(scope="module")
def networks() -> dict[float, OFAMobileNetV3]:
    """The released super-network of each width; nobody changes their weights."""
    return {width: make_released(width) for width in WIDTHS}


def released(theirs: OFAMobileNetV3, architecture: Architecture) -> torch.Tensor:
    """Logits of the released sub-network."""
    layers = [layer for s in architecture.stages for layer in (*s, *[s[0]] * (4 - len(s)))]
    theirs.set_active_subnet(
        ks=[layer.kernel for layer in layers],
        e=[int(layer.expansion) for layer in layers],
        d=list(architecture.depths),
    )
    with torch.no_grad():
        return theirs(IMAGES[architecture.resolution])


def draw(width: float, count: int, seed: int = 0) -> list[Architecture]:
    """Architectures in which every choice occurs; among them the extremes, and all layers at the smallest."""
    space = OFA.restrict(widths=(width,))
    drawn = random_architectures(IntegerEncoding(space), np.random.default_rng(seed), count)
    layers = [layer for architecture in drawn for stage in architecture.stages for layer in stage]
    assert {layer.kernel for layer in layers} == set(space.kernels)
    assert {layer.expansion for layer in layers} == set(space.expansions)
    assert {depth for architecture in drawn for depth in architecture.depths} == set(space.depths)
    assert {architecture.resolution for architecture in drawn} == set(RESOLUTIONS)
    deep = Architecture(RESOLUTIONS[1], width, ((Layer(3, 3.0),) * 4,) * 5)
    return [space.smallest(), space.largest(), deep, *drawn]


def assert_same(ours: SuperNetwork, theirs: OFAMobileNetV3, architectures: list[Architecture]) -> None:
    """Logits differ by less than 1e-4."""
    for architecture in architectures:
        wanted = released(theirs, architecture)
        assert (wanted[0] - wanted[1]).abs().max() > 1e-3  # the images are seen, through all layers
        with torch.no_grad():
            found = ours(IMAGES[architecture.resolution], architecture)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def newest(name: str) -> str:
    return name


def inverted(name: str) -> str:
    """As the released files name blocks."""
    return re.sub(r"^(blocks\.\d+)\.conv\.", r"\1.mobile_inverted_conv.", name)


def short(name: str) -> str:
    """Dynamic layers named like plain ones."""
    name = inverted(name).replace(".bn.bn.", ".bn.")
    return name.replace(".conv.conv.weight", ".conv.weight")


def long(name: str) -> str:
    """Plain layers named like dynamic ones."""
    name = re.sub(r"(?<!\.bn)\.bn\.(?!bn\.)", ".bn.bn.", name)
    name = re.sub(r"(?<!\.conv)\.conv\.weight", ".conv.conv.weight", name)
    return name.replace(".linear.", ".linear.linear.")


SPELLINGS = (newest, inverted, short, long)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("width", WIDTHS)
def test_an_import_computes_what_the_released_network_does(width, spelling, networks, tmp_path):
    theirs = networks[width]
    state = {spelling(name): tensor for name, tensor in theirs.state_dict().items()}
    theirs.load_state_dict(state)  # the released code takes that spelling too
    path = tmp_path / "released.pth"
    # The released files are of PyTorch's older format.
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=spelling is newest)
    ours, info = import_once_for_all(path, OFA)
    assert (info.width, info.classes, info.space) == (width, 10, OFA.restrict(widths=(width,)))
    assert not ours.training
    assert_same(ours, theirs, draw(width, 8, seed=SPELLINGS.index(spelling)))


def test_data_parallel_names(networks, tmp_path):
    state = {f"module.{inverted(name)}": tensor for name, tensor in networks[1.2].state_dict().items()}
    torch.save({"state_dict": state, "epoch": 180}, tmp_path / "released.pth")
    ours, _ = import_once_for_all(tmp_path / "released.pth", OFA)
    assert_same(ours, networks[1.2], draw(1.2, 6))


def test_both_sort_channels_alike(tmp_path):
    theirs = make_released(1.0, seed=1)
    torch.save(theirs.state_dict(), tmp_path / "released.pth")  # a plain state dict, as some pass them on
    ours, _ = import_once_for_all(tmp_path / "released.pth", OFA)
    theirs.re_organize_middle_weights(expand_ratio_stage=0)
    ours.sort_channels()
    assert_same(ours, theirs, draw(1.0, 6))


@pytest.fixture
def checkpoint(networks, tmp_path) -> Path:
    path = tmp_path / "released.pth"
    torch.save({"state_dict": networks[1.0].state_dict()}, path)
    return path


def test_an_import_is_saved_and_read_again_with_its_description(checkpoint, tmp_path):
    ours, info = import_once_for_all(checkpoint, load_space("ofav2-mbv3-se-b"))
    assert info.space.name == "ofav2-mbv3-se-b" and info.phases == ("imported",)
    assert (info.data, info.labels, info.mean[0], info.std[0]) == ("", (), 0.485, 0.229)
    assert sha256(checkpoint) in info.recipe
    save_supernet(tmp_path / "w.safetensors", ours, info)
    loaded, told = load_supernet(tmp_path / "w.safetensors")
    assert told == info
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_another_number_of_classes_gets_a_new_classifier_and_keeps_the_rest(checkpoint):
    old, plain = import_once_for_all(checkpoint, OFA, classes=10, seed=3)  # 10: the file's own
    new, info = import_once_for_all(checkpoint, OFA, classes=7, seed=3)
    other, told = import_once_for_all(checkpoint, OFA, classes=7, seed=4)
    assert info.classes == new.classes == 7 and info.data == ""
    assert len({plain.recipe, info.recipe, told.recipe}) == 3 and "seed" not in plain.recipe
    assert new.exits["5"][1].linear.out_features == 7
    assert not torch.equal(new.exits["5"][1].linear.weight, other.exits["5"][1].linear.weight)
    kept = {name: tensor for name, tensor in old.state_dict().items() if "linear" not in name}
    assert all(torch.equal(tensor, new.state_dict()[name]) for name, tensor in kept.items())


FIRST, CLASSIFIER = "first_conv.conv.weight", "classifier.linear.weight"
VARIANCE = "first_conv.bn.running_var"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("blocks.3.conv.depth_conv.conv.7to5_matrix"), "lacks tensor blocks.3.conv.depth_conv.conv.7to5"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("blocks.20.")], r"at 1, the nearest.*and 23 more such"),
        (lambda s: s.update({"blocks.21.conv.point_linear.conv.weight": torch.ones(1)}), "too many"),
        (lambda s: s.update({FIRST: torch.ones(20, 3, 3, 3)}), r"shape \[20, 3, 3, 3\] instead of \[16, 3, 3, 3\]"),
        (lambda s: s.update({FIRST: torch.ones(16)}), r"shape \[16\] instead of"),
        (lambda s: s.update({FIRST: s[FIRST] * torch.nan}), "not finite"),
        (lambda s: s.update({FIRST: s[FIRST].double() * 1e300}), "not finite in 32 bits"),
        (lambda s: s.update({FIRST: s[FIRST].to(torch.float8_e4m3fn)}), "no plain floating-point numbers"),
        (lambda s: s.update({VARIANCE: -s[VARIANCE]}), f"{VARIANCE} holds a variance below 0"),
        (lambda s: s.update({FIRST: s[FIRST].int()}), "int32"),
        (lambda s: s.update({FIRST: s[FIRST].to_sparse()}), "floating-point"),
        (lambda s: s.update({FIRST: 3}), "of type int, not a tensor"),
        (lambda s: s.update({f"module.{FIRST}": s[FIRST]}), "twice"),
        (lambda s: s.pop(CLASSIFIER), f"no tensor {CLASSIFIER}"),
        (lambda s: s.update({CLASSIFIER: torch.ones(0, 1280)}), r"shape \[0, 1280\]"),
        (lambda s: s.update({CLASSIFIER: torch.tensor(3.0)}), r"of shape \[\]"),
        (lambda s: s.update({CLASSIFIER: torch.ones(9, 1280)}), r"classifier.linear.bias of shape \[10\]"),
        (lambda s: s.update({"x": argparse.Namespace()}), "holds argparse.Namespace, and of pickled objects only tensors"),
        (lambda s: s.clear(), "no state dict"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(change, words, networks, tmp_path):
    state = dict(networks[1.0].state_dict())
    change(state)
    path = tmp_path / "released.pth"
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError, match=words) as error:
        import_once_for_all(path, OFA)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<!DOCTYPE html>", b"PK\x03\x04hello", b"\x80\x02}q\x00."]
)
def test_what_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "released.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        import_once_for_all(path, OFA)
    assert "\n" not in str(error.value)


def test_half_a_file_and_no_file_are_refused(checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:5_000_000])
    with pytest.raises(UserError, match="no whole PyTorch file"):
        import_once_for_all(checkpoint, OFA)
    for path in (checkpoint.parent, checkpoint / "none.pth"):
        with pytest.raises(UserError, match="no checkpoint at"):
            import_once_for_all(path, OFA)


def test_a_flipped_byte_is_noticed(checkpoint):
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(UserError, match="no whole PyTorch file"):
        import_once_for_all(checkpoint, OFA)


@pytest.mark.parametrize("options", [{"_use_new_zipfile_serialization": False}, {}])
def test_files_without_sums_are_read(networks, tmp_path, options):
    path = tmp_path / "released.pth"
    summed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(networks[1.0].state_dict(), path, **options)
    finally:
        torch.serialization.set_crc32_options(summed)
    assert import_once_for_all(path, OFA)[0].space.name == "ofa-mbv3"


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (load_space("nano"), "kernels 3, 5 instead of 3, 5, 7"),
        (load_space("ofa-mbv3-ee-b"), "early exits"),
        (load_space("ofa-mbv3-se-d"), "dense skips"),
        (load_space("ofa-mbv3-se-p"), "parallel branches"),
        (OFA.restrict(widths=(1.2,)), "at 1.2, the nearest"),
        (OFA.model_copy(update={"depths": (2, 3)}), "more such"),
    ],
)
def test_a_space_of_other_parts_is_refused(space, words, checkpoint):
    with pytest.raises(UserError, match=words):
        import_once_for_all(checkpoint, space)
