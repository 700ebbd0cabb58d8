"""Several processes train one network: each takes its part of every batch, and all stay the same.

Every process draws the same batches and sub-networks from the seed. What depends on the whole batch is
computed over all processes: the statistics of batch normalisation, gradients and the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nat2deploy import batch_norm
from nat2deploy.errors import UserError
from nat2deploy.launch import Launch, launched


@dataclass(frozen=True)
class World:
    """The processes that train together; of one process alone, every method leaves things as they are.

    ``rank`` is this process's number of ``size``; ``device`` is where tensors that they exchange must be.
    All processes must call the same methods in the same order.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """This process's part of a batch (images [B, 3, r, r], targets [B]) that all of them drew.

        Raises:
            UserError: the batch does not divide into equal parts, whose mean would be another loss.
        """
        if len(images) % self.size:
            raise UserError(
                f"a batch of {len(images)} images does not divide evenly among {self.size} processes; "
                f"choose a batch size that is a multiple of {self.size}"
            )
        part = len(images) // self.size
        own = slice(self.rank * part, (self.rank + 1) * part)
        return images[own], targets[own]

    def whole_batch(self) -> AbstractContextManager[None]:
        """A context in which batch normalisation takes its statistics over the parts of all processes."""
        return nullcontext() if self.size == 1 else batch_norm.whole_batch(self)

    def average_gradients(self, module: nn.Module) -> None:
        """Replace the gradients of a module's parameters by their mean over all processes.

        Parameters without one are left so; they must be the same ones in every process.
        """
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        mean = self.add(torch.cat([gradient.flatten() for gradient in gradients])) / self.size
        parts = torch.split(mean, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def average(self, value: float) -> float:
        """The mean of a number over all processes."""
        return value if self.size == 1 else float(self._numbers(value).mean())

    def first_says(self, answer: bool) -> bool:
        """The first process's answer, where each might have another: clocks differ."""
        return answer if self.size == 1 else bool(self._numbers(float(answer))[0])

    def expect_same(self, value: int, what: str) -> None:
        """Make sure that all processes found the same number; none goes on before all have looked.

        Raises:
            UserError: they did not, so they see different files.
        """
        if self.size == 1:
            return
        found = sorted({int(number) for number in self._numbers(float(value)).tolist()})
        if len(found) > 1:
            raise UserError(
                f"the processes found different numbers of {what} ({', '.join(map(str, found))}); "
                "write to a folder that all of them share"
            )

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            self._numbers(0.0)

    def gather(self, row: Tensor) -> Tensor:
        """[n] of this process to [size, n], the same in all of them."""
        rows = row.new_empty((self.size, len(row)))
        with _connected():
            dist.all_gather(list(rows.unbind()), row)
        return rows

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over all processes of tensors of one shape, which is written over ``tensor``."""
        with _connected():
            dist.all_reduce(tensor)
        return tensor

    def _numbers(self, own: float) -> Tensor:
        """Each process's number, [size]."""
        return self.gather(torch.tensor([own], dtype=torch.float64, device=self.device))[:, 0]


ALONE = World()
"""One process."""


@contextmanager
def world(device: str = "cpu") -> Iterator[World]:
    """Join the processes that ``torchrun`` started, and part at the end; without it, yield ``ALONE``.

    They exchange tensors by Gloo on the CPU and by NCCL on GPUs, of which each process takes its own:
    inside, device ``cuda`` is that one. A group that exists already is used and left as it is.

    Raises:
        UserError: there is no such device, too few of them, or the others cannot be reached.
    """
    place, launch = torch.device(device), launched()
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device}: PyTorch finds no usable GPU; use device cpu")
    if launch.size == 1:
        if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
            last = torch.cuda.device_count() - 1
            raise UserError(
                f"device {device}: the last GPU that PyTorch sees is cuda:{last}; choose one up to it"
            )
        yield ALONE
        return
    if place.type == "cuda":
        place = _own_gpu(place, launch)
    joins = not dist.is_initialized()
    if joins:
        _join(place)
    yield World(dist.get_rank(), dist.get_world_size(), place)
    # After an error the others are not there any more to part from.
    if joins:
        dist.destroy_process_group()


def _own_gpu(place: torch.device, launch: Launch) -> torch.device:
    if place.index is not None:
        raise UserError(f"device {place} is one GPU for {launch.size} processes; use device cuda")
    if launch.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {launch.local_rank + 1} of this machine has no GPU of its own; "
            f"start at most {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(launch.local_rank)
    return torch.device("cuda", launch.local_rank)


def _join(place: torch.device) -> None:
    on_gpu = place.type == "cuda"
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=place if on_gpu else None)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the other processes cannot be joined ({error}); start all with torchrun") from error


class LostProcess(UserError):
    """Another process of a training is gone."""


@contextmanager
def _connected() -> Iterator[None]:
    """Say in one line that another process is gone; why is for that one to say."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in ("by peer", "Broken pipe")):
            raise
        raise LostProcess(
            "another process of this training ended; see its message, then start all again"
        ) from error
