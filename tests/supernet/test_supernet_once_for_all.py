"""The elastic layers slice as Once-For-All's do: the released package's weights, put into ours."""

import numpy as np
import pytest
import torch
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.network import SuperNetwork

OFA = load_space("ofa-mbv3").restrict(resolutions=(128,), widths=(1.0,))
IMAGES = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def peers() -> tuple[OFAMobileNetV3, SuperNetwork]:
    """The released super-network with random statistics and transforms, and ours with its weights."""
    torch.manual_seed(0)
    theirs = OFAMobileNetV3(
        n_classes=10,
        dropout_rate=0.0,
        width_mult=1.0,
        ks_list=[3, 5, 7],
        expand_ratio_list=[3, 4, 6],
        depth_list=[2, 3, 4],
    )
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if name.endswith("_matrix"):
                tensor.add_(torch.randn_like(tensor), alpha=0.2)
            elif name.endswith(("running_var", "bn.weight")):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bn.bias")):
                tensor.uniform_(-0.2, 0.2)
    ours = SuperNetwork(OFA, 1.0, 10)
    source = theirs.state_dict()
    # both keep layers in the order in which they run
    plain = iter([tensor for name, tensor in source.items() if not name.endswith("_matrix")])
    maps = {
        step: iter([tensor for name, tensor in source.items() if name.endswith(f"{step}_matrix")])
        for step in ("7to5", "5to3")
    }
    state = {
        name: next(maps[name.rpartition(".")[2]] if ".transforms." in name else plain)
        for name in ours.state_dict()
    }
    ours.load_state_dict(state)
    return theirs.eval(), ours.eval()


def released(theirs: OFAMobileNetV3, architecture: Architecture) -> torch.Tensor:
    """Logits of the released sub-network."""
    layers = [layer for s in architecture.stages for layer in (*s, *[s[0]] * (4 - len(s)))]
    theirs.set_active_subnet(
        ks=[layer.kernel for layer in layers],
        e=[int(layer.expansion) for layer in layers],
        d=list(architecture.depths),
    )
    with torch.no_grad():
        return theirs(IMAGES)


@pytest.mark.parametrize("sort", [False, True])
def test_subnetworks_of_the_same_weights_compute_the_same(sort):
    theirs, ours = peers()
    if sort:
        theirs.re_organize_middle_weights(expand_ratio_stage=0)
        ours.sort_channels()
    drawn = random_architectures(IntegerEncoding(OFA), np.random.default_rng(0), 4)
    for architecture in (OFA.smallest(), OFA.largest(), *drawn):
        wanted = released(theirs, architecture)
        assert wanted.std() > 1e-3
        with torch.no_grad():
            torch.testing.assert_close(ours(IMAGES, architecture), wanted, rtol=1e-3, atol=1e-4)
