import pytest
import torch

from nat2deploy.blocks import SqueezeExcite, build_block
from nat2deploy.cost.activations import activation_bytes
from nat2deploy.space.lowering import every_signature
from nat2deploy.space.search_space import load_space


def largest_operator_bytes(signature):
    """The largest input and output of a convolution, gate or linear layer that really runs."""
    sizes = []

    def note(module, inputs, output):
        sizes.append(4 * (inputs[0].numel() + output.numel()))

    block = build_block(signature).eval()
    for part in block.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear | SqueezeExcite):
            part.register_forward_hook(note)
    with torch.no_grad():
        output = block(torch.zeros(1, *signature.input_shape))
    if signature.shortcut:
        sizes.append(4 * 3 * output.numel())
    return max(sizes)


NANO = list(every_signature(load_space("nano").restrict(resolutions=(28,)), (10,)))


@pytest.mark.parametrize("signature", NANO[::5] + NANO[-2:], ids=lambda signature: signature.key)
def test_agrees_with_the_tensors_of_a_real_block(signature):
    gates = 4 * signature.mid_channels if signature.se else 0
    assert activation_bytes(signature) - largest_operator_bytes(signature) in (0, gates)
