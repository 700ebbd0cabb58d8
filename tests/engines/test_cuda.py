import numpy as np
import pytest
import torch

from nat2deploy.engines.cuda import device_of, gpu_errors, replayed
from nat2deploy.errors import UserError
from nat2deploy.target import Target

GPU = Target(device="cuda", backend="torch", precision="fp16")


def test_too_little_memory_is_one_line():
    with (
        pytest.raises(UserError, match="cuda:0 has too little memory left for this network"),
        gpu_errors(GPU),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nmore")


def test_other_failures_are_one_line():
    words = r"the target \(cuda:0 torch fp16, batch 1\) cannot run this network: cuDNN error"
    with pytest.raises(UserError, match=words) as caught, gpu_errors(GPU):
        raise RuntimeError("cuDNN error\nException raised from")
    assert "\n" not in str(caught.value)


def test_our_own_errors_pass():
    with pytest.raises(UserError, match=r"^mine$"), gpu_errors(GPU):
        raise UserError("mine")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_no_device():
    with pytest.raises(UserError, match="sees no GPU here"):
        device_of(GPU)


@pytest.mark.gpu
@pytest.mark.parametrize("capture", [True, False])
def test_a_replay_does_the_work_anew_and_waits_for_it(capture):
    device = device_of(GPU)
    given, result = (torch.zeros(1 << 24, device=device) for _ in range(2))
    calls = []

    def launch():
        calls.append(1)
        for _ in range(20):
            result.copy_(given + 1)

    call = replayed(device, launch, capturable=lambda stream: capture)
    before = len(calls)
    given.fill_(41)
    torch.cuda.synchronize()
    call()
    assert torch.cuda.current_stream(device).query()  # nothing is left to do
    np.testing.assert_array_equal(result[:3].cpu().numpy(), 42)
    assert len(calls) == before + (not capture)  # a graph does not call back into Python
