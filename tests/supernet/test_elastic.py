import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nat2deploy.blocks import MBConv, build_block
from nat2deploy.space.signature import BlockSignature
from nat2deploy.supernet.elastic import ElasticMBConv

FULL = BlockSignature("mbconv", 8, 32, 8, 7, 1, True, True, "hswish", 6, 6)


def elastic(signature: BlockSignature = FULL, kernels: tuple[int, ...] = (3, 5, 7)) -> ElasticMBConv:
    torch.manual_seed(0)
    block = ElasticMBConv(signature, kernels).eval()
    with torch.no_grad():
        for name, tensor in (*block.named_parameters(), *block.named_buffers()):
            if "transforms" in name:
                tensor.add_(torch.randn_like(tensor), alpha=0.2)
            elif tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0) if "var" in name else tensor.uniform_(-1.0, 1.0)
    return block


def test_the_largest_choice_is_the_full_block():
    block, images = elastic(), torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block(images, 7, 32), block.full(images))


def test_a_smaller_kernel_is_the_mapped_centre_of_the_next_larger():
    block = elastic()
    weight = block.full.depthwise.weight.detach()
    five = torch.stack(
        [(block.transforms["7to5"] @ weight[c, 0, 1:6, 1:6].flatten()).view(1, 5, 5) for c in range(32)]
    )
    three = torch.stack(
        [(block.transforms["5to3"] @ five[c, 0, 1:4, 1:4].flatten()).view(1, 3, 3) for c in range(32)]
    )
    torch.testing.assert_close(block.depthwise_weight(7, 20), weight[:20])
    torch.testing.assert_close(block.depthwise_weight(5, 20), five[:20])
    torch.testing.assert_close(block.depthwise_weight(3, 20), three[:20])


def test_fresh_transforms_are_the_identity():
    block = ElasticMBConv(FULL, (3, 5, 7))
    torch.testing.assert_close(block.depthwise_weight(3, 32), block.full.depthwise.weight[:, :, 2:5, 2:5])
    assert {name: tuple(p.shape) for name, p in block.transforms.items()} == {
        "7to5": (25, 25),
        "5to3": (9, 9),
    }


def test_kernels_may_skip_a_size_or_be_one():
    skipping = elastic(kernels=(3, 7))
    assert set(skipping.transforms) == {"7to3"}
    assert skipping.depthwise_weight(3, 8).shape == (8, 1, 3, 3)
    assert not elastic(kernels=(7,)).transforms


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("channels", [8, 16, 24, 32])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_slice_copied_out_computes_the_same(kernel, channels, stride):
    full = BlockSignature("mbconv", 8, 32, 8, 7, stride, True, stride == 1, "hswish", 6, 6)
    chosen = BlockSignature("mbconv", 8, channels, 8, kernel, stride, True, stride == 1, "hswish", 6, 6)
    block, plain = elastic(full), build_block(chosen).eval()
    assert isinstance(plain, MBConv)
    block.slice_into(plain)
    images = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block(images, kernel, channels), plain(images))


def test_sorting_orders_by_the_l1_norm_of_the_projection():
    block = elastic()
    norms = block.full.project.weight.abs().sum((0, 2, 3))
    assert (norms.diff() > 0).any()
    before = norms.detach().sort(descending=True).values
    block.sort_channels()
    after = block.full.project.weight.abs().sum((0, 2, 3))
    torch.testing.assert_close(after.detach(), before)
    assert block.full.se is not None
    gates = block.full.se.expand.weight.abs().sum((0, 2, 3))
    assert (gates.diff() <= 1e-5).all()


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_sorting_leaves_the_full_width_function_unchanged(kernel):
    block, images = elastic(), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        before, half = block(images, kernel, 32), block(images, kernel, 16)
        weight = copy.deepcopy(block.full.depthwise.weight)
        block.sort_channels()
        torch.testing.assert_close(block(images, kernel, 32), before, rtol=1e-4, atol=1e-5)
        assert not torch.equal(block.full.depthwise.weight, weight)
        assert not torch.allclose(block(images, kernel, 16), half)


def test_sorting_a_block_without_expansion_does_nothing():
    """Its middle channels are its input's; their order belongs to the block before."""
    block = elastic(BlockSignature("mbconv", 8, 8, 8, 7, 1, True, True, "relu", 6, 6))
    before = copy.deepcopy(block.state_dict())
    block.sort_channels()
    for name, tensor in block.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_training_updates_only_the_slices_running_statistics():
    block = elastic().train()
    before = copy.deepcopy(block.state_dict())
    block(torch.randn(4, 8, 6, 6), 5, 16)
    for name, norm in (("expand_bn", block.full.expand_bn), ("depthwise_bn", block.full.depthwise_bn)):
        assert isinstance(norm, nn.BatchNorm2d)
        for statistic in ("running_mean", "running_var"):
            old, new = before[f"full.{name}.{statistic}"], getattr(norm, statistic)
            assert (new[:16] != old[:16]).all()
            assert torch.equal(new[16:], old[16:])
    assert (block.full.project_bn.running_mean != before["full.project_bn.running_mean"]).all()


def test_training_statistics_are_those_of_plain_batch_normalisation():
    block, plain = elastic().train(), build_block(BlockSignature.parse(FULL.key.replace("k7", "k3"))).train()
    assert isinstance(plain, MBConv)
    block.slice_into(plain)
    images = torch.randn(4, 8, 6, 6)
    torch.testing.assert_close(block(images, 3, 32), plain(images))
    for name, statistic in plain.named_buffers():
        if "num_batches" not in name:
            torch.testing.assert_close(block.full.get_buffer(name), statistic, msg=name)


@pytest.mark.parametrize(("kernel", "reached"), [(7, set()), (5, {"7to5"}), (3, {"7to5", "5to3"})])
def test_gradients_flow_into_the_transforms_that_were_used(kernel, reached):
    block = elastic().train()
    F.mse_loss(block(torch.randn(4, 8, 6, 6), kernel, 16), torch.randn(4, 8, 6, 6)).backward()
    gradients = {name: parameter.grad for name, parameter in block.transforms.items()}
    assert {name for name, gradient in gradients.items() if gradient is not None} == reached
    assert all(gradient.abs().max() > 0 for gradient in gradients.values() if gradient is not None)
    grad = block.full.depthwise.weight.grad
    assert grad is not None
    assert (grad[:16].abs().sum((1, 2, 3)) > 0).all()
    assert not grad[16:].any()
