import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import lower, plan_network, total_params
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space


def images_of(architecture: Architecture, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, 3, architecture.resolution, architecture.resolution, generator=generator)


def drawn(supernet, count: int, resolution: int) -> list[Architecture]:
    encoding = IntegerEncoding(supernet.space.restrict(resolutions=(resolution,)))
    return random_architectures(encoding, np.random.default_rng(0), count)


def check_extraction(supernet, architecture: Architecture) -> None:
    images = images_of(architecture)
    plain = supernet.extract(architecture)
    with torch.no_grad():
        wanted = supernet(images, architecture)
        assert wanted.std() > 1e-4
        torch.testing.assert_close(plain(images), wanted, rtol=1e-4, atol=1e-5)
    parameters = sum(p.numel() for p in plain.parameters())
    assert parameters == total_params(lower(supernet.space, architecture, supernet.classes))


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_extracted_networks_compute_what_the_supernet_does(tiny_space, make_supernet, width):
    supernet = make_supernet(tiny_space, width)
    architectures = drawn(supernet, 30, 16)
    ends = [tiny_space.smallest(24, width), tiny_space.largest(24, width)]
    for architecture in (*ends, *architectures):
        check_extraction(supernet, architecture)
    layers = {layer for a in architectures for stage in a.stages for layer in stage}
    assert {layer.kernel for layer in layers} == {3, 5, 7}
    assert Layer(7, 1.0) in layers


@pytest.mark.parametrize("width", [1.0, 1.2])
def test_extraction_holds_for_once_for_alls_space(make_supernet, width):
    supernet = make_supernet(load_space("ofa-mbv3"), width)
    for architecture in drawn(supernet, 4, 128):
        check_extraction(supernet, architecture)


def test_extraction_holds_after_training_moved_weights_and_statistics(tiny_space, make_supernet):
    supernet = make_supernet(tiny_space).train()
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.05)
    architectures = drawn(supernet, 6, 16)
    for architecture in architectures:
        optimiser.zero_grad()
        F.cross_entropy(supernet(images_of(architecture, 8), architecture), torch.arange(8)).backward()
        optimiser.step()
    supernet.eval()
    for architecture in architectures:
        check_extraction(supernet, architecture)


def test_an_extracted_network_owns_its_weights_and_keeps_the_mode(tiny_space, make_supernet):
    supernet = make_supernet(tiny_space)
    architecture = supernet.space.largest(16)
    before = copy.deepcopy(supernet.state_dict())
    plain = supernet.extract(architecture)
    assert not plain.training
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    for name, tensor in supernet.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert supernet.train().extract(architecture).training


def test_training_touches_only_the_statistics_of_layers_that_ran(tiny_space, make_supernet):
    supernet = make_supernet(tiny_space).train()
    architecture = Architecture(16, 1.0, ((Layer(3, 2.5),), (Layer(5, 4.0), Layer(3, 2.5))))
    before = copy.deepcopy(dict(supernet.named_buffers()))
    supernet(images_of(architecture, 4), architecture)
    ran = {(0, 0): 40, (1, 0): 64, (1, 1): 64}
    for name, tensor in supernet.named_buffers():
        parts = name.split(".")
        if parts[0] != "stages" or not tensor.ndim:
            continue
        place, norm = (int(parts[1]), int(parts[2])), parts[5]
        changed = tensor != before[name]
        if place not in ran:
            assert not changed.any(), name
        elif norm == "project_bn":
            assert changed.all(), name
        else:
            assert changed[: ran[place]].all(), name
            assert not changed[ran[place] :].any(), name


def test_gradients_reach_only_the_active_layers(tiny_space, make_supernet):
    supernet = make_supernet(tiny_space).train()
    smallest = tiny_space.smallest(16, 1.0)
    deep = Architecture(16, 1.0, (*smallest.stages[:1], (Layer(3, 2.5),) * 2))
    F.cross_entropy(supernet(images_of(deep, 4), deep), torch.arange(4)).backward()
    for stage, present in enumerate(deep.depths):
        for position in range(tiny_space.max_depth):
            block = supernet.stages[stage][position].residual
            gradients = [p.grad for p in block.transforms.values()]
            if position < present:
                assert all(g is not None and g.abs().max() > 0 for g in gradients)
            else:
                assert all(p.grad is None for p in block.parameters())


def test_sorting_channels_keeps_the_largest_network_and_changes_the_others(tiny_space, make_supernet):
    supernet = make_supernet(tiny_space)
    largest = supernet.space.largest(16)
    wide = [
        a for a in drawn(supernet, 60, 16) if all(layer.expansion == 4.0 for s in a.stages for layer in s)
    ]
    narrow = Architecture(16, 1.0, ((Layer(7, 2.5),) * 3,) * 2)
    assert wide
    with torch.no_grad():
        kept = [(a, supernet(images_of(a), a)) for a in (largest, *wide)]
        other = supernet(images_of(narrow), narrow)
        supernet.sort_channels()
        for architecture, wanted in kept:
            torch.testing.assert_close(
                supernet(images_of(architecture), architecture), wanted, rtol=1e-3, atol=1e-4
            )
        assert not torch.allclose(supernet(images_of(narrow), narrow), other, rtol=1e-3, atol=1e-4)
    for stage in supernet.stages:
        for layer in stage:
            block = layer.residual
            assert (block.full.project.weight.abs().sum((0, 2, 3)).diff() <= 1e-5).all()


def test_other_classes_keep_everything_but_the_classifier(tiny_space, make_supernet):
    supernet = make_supernet(tiny_space, 0.5, classes=10)
    other = supernet.with_classes(3)
    assert (other.classes, other.width, other.training) == (3, 0.5, False)
    kept, state = supernet.state_dict(), other.state_dict()
    assert kept.keys() == state.keys()
    for name, tensor in state.items():
        if ".linear." in name:
            assert tensor.shape[0] == 3
        else:
            assert torch.equal(tensor, kept[name]), name
            assert not tensor.numel() or tensor.data_ptr() != kept[name].data_ptr()
    smallest = other.space.smallest(16)
    assert other(images_of(smallest), smallest).shape == (2, 3)


def test_the_same_classes_keep_the_classifier_too(tiny_space, make_supernet):
    supernet = make_supernet(tiny_space)
    same = supernet.with_classes(10)
    for name, tensor in same.state_dict().items():
        assert torch.equal(tensor, supernet.state_dict()[name]), name


def test_two_threads_with_two_architectures_do_not_disturb_each_other(tiny_space, make_supernet):
    supernet = make_supernet(tiny_space)
    pair = [supernet.space.smallest(16), supernet.space.largest(16)]

    def run(architecture: Architecture) -> torch.Tensor:
        with torch.no_grad():
            return supernet(images_of(architecture), architecture)

    alone = [run(architecture) for architecture in pair]
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, pair * 20))
    for index, logits in enumerate(together):
        torch.testing.assert_close(logits, alone[index % 2], rtol=1e-5, atol=1e-6)


def test_what_the_supernet_has_not_is_a_user_error(tiny_space, make_supernet):
    supernet = make_supernet(tiny_space, 0.5)
    architecture = tiny_space.smallest(16, 1.0)
    with pytest.raises(UserError, match=r"is not in space 'tiny' at width 0\.5"):
        supernet.extract(architecture)
    with pytest.raises(UserError, match="is not in space 'tiny'"):
        supernet(images_of(architecture), architecture)
    with pytest.raises(UserError, match=r"space 'tiny' has no width 0\.75; choose from 0\.5, 1"):
        make_supernet(tiny_space, 0.75)


VARIANTS = [f"nano-{exits}-{body}" for exits in ("se", "ee", "me") for body in ("b", "d", "p", "dp")]


@pytest.mark.parametrize("name", VARIANTS)
def test_extraction_holds_for_every_variant(make_supernet, name):
    supernet = make_supernet(load_space(name))
    space = supernet.space
    for architecture in (space.smallest(28), space.largest(28), space.full(28), *drawn(supernet, 8, 28)):
        check_extraction(supernet, architecture)


@pytest.mark.parametrize("width", [1.0, 1.2])
def test_extraction_holds_for_ofav2(make_supernet, width):
    supernet = make_supernet(load_space("ofav2-mbv3"), width)
    for architecture in drawn(supernet, 4, 128):
        check_extraction(supernet, architecture)


def test_an_early_exit_computes_what_it_does_among_several(make_supernet):
    supernet = make_supernet(load_space("nano-me-d"))
    full = supernet.space.full(28)
    images = images_of(full)
    with torch.no_grad():
        together = supernet.exit_logits(images, full)
        assert len(together) == 4
        for stage, logits in enumerate(together, start=1):
            alone = Architecture(28, 1.0, full.stages[:stage])
            torch.testing.assert_close(supernet(images, alone), logits)
        torch.testing.assert_close(supernet(images, full), sum(together) / 4)
        plain = supernet.extract(full)
        plain.exit_weights.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
        torch.testing.assert_close(plain(images), together[1], rtol=1e-4, atol=1e-5)


def test_dense_skips_add_earlier_outputs_by_the_formula(make_supernet):
    supernet = make_supernet(load_space("ofav2-mbv3-se-d").restrict(resolutions=(128,)))
    architecture = supernet.space.largest(128)
    plain, images = supernet.extract(architecture), images_of(architecture)
    with torch.no_grad():
        x = plain.stem(images)
        for layers in plain.layers():
            y1 = layers[0](x)
            y2 = layers[1](y1)
            y3 = layers[2](y2)
            y4 = layers[3](y3 + y1)
            x = y4 + y1 + y2
        torch.testing.assert_close(plain(images), plain.exits["5"](x), rtol=1e-4, atol=1e-5)


def test_branches_are_summed(make_supernet):
    supernet = make_supernet(load_space("nano-se-p"))
    layer, x = supernet.stages[0][0], torch.randn(2, 16, 14, 14)
    plan = plan_network(supernet.space, supernet.space.largest(28), 10)
    blocks = plan.stages[0][0]
    with torch.no_grad():
        alone = [layer(x, {bit: block}) for bit, block in blocks.items()]
        torch.testing.assert_close(layer(x, blocks), sum(alone))
        torch.testing.assert_close(layer(x, {2: blocks[2], 4: blocks[4]}), alone[1] + alone[2])


def test_extracted_networks_hold_nothing_that_is_switched_off(make_supernet):
    supernet = make_supernet(load_space("nano-ee-dp"))
    plain = supernet.extract(Architecture(28, 1.0, ((Layer(0, 0.0, 2), Layer(3, 2.0, 5)),)))
    names = {name.rpartition(".")[0].removeprefix("stages.") for name, _ in plain.named_parameters()}
    assert {name.split(".")[2] for name in names if name[0] == "0"} == {"pointwise", "mbconv", "transform"}
    assert list(plain.exits) == ["1"] and len(plain.layers()) == 1
    assert list(plain.layers()[0][0]) == ["pointwise"]
