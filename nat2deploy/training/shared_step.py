"""Several processes share each step's sub-networks, and end with the weights of one to the last bit.

Cutting the batch instead (``World``) rounds sums elsewhere, and a search would take another way after a
while. Here each process sees the whole batch with some of the sub-networks, and the gradients are added in
the order in which one process adds them. Only the running statistics of batch normalisation are each
process's own; whoever judges a sub-network computes its anew.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nat2deploy.training.distributed import World

Found = tuple[Tensor, list[Tensor | None]]
"""The loss of a sub-network, and the gradient of each parameter, None where it has none."""


@dataclass(frozen=True)
class SubNetworkWorld(World):
    """Processes that share sub-networks, not images; see ``World`` for the rest."""

    def share(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The whole batch."""
        return images, targets

    def whole_batch(self) -> AbstractContextManager[None]:
        """A context that changes nothing: each process has the whole batch."""
        return nullcontext()

    def average_gradients(self, module: nn.Module) -> None:
        """Nothing is left to do: the step has added them."""

    def average(self, value: float) -> float:
        """The number itself, which is the same in all processes."""
        return value

    def own(self, count: int) -> range:
        """Which of a step's ``count`` sub-networks this process takes."""
        return range(self.rank, count, self.size)

    def add_in_order(self, module: nn.Module, found: dict[int, Found], count: int) -> Tensor:
        """Set a module's gradients to the sum over ``count`` sub-networks; returns the sum of their losses.

        ``found`` holds those of this process's own, by their place among all.
        """
        parameters = list(module.parameters())
        sizes = [p.numel() for p in parameters]
        turns = -(-count // self.size)
        row = torch.zeros(turns, 1 + len(parameters) + sum(sizes))
        for turn, index in enumerate(self.own(count)):
            loss, gradients = found[index]
            row[turn, 0] = loss
            row[turn, 1 : 1 + len(parameters)] = torch.tensor([float(g is not None) for g in gradients])
            flat = [
                torch.zeros(size) if g is None else g.flatten()
                for g, size in zip(gradients, sizes, strict=True)
            ]
            row[turn, 1 + len(parameters) :] = torch.cat(flat)
        rows = self.gather(row.flatten()).view(self.size, turns, -1)
        total = torch.zeros(())
        for parameter in parameters:
            parameter.grad = None
        for index in range(count):
            one = rows[index % self.size, index // self.size]
            total += one[0]
            there = one[1 : 1 + len(parameters)].tolist()
            for parameter, has, part in zip(
                parameters, there, torch.split(one[1 + len(parameters) :], sizes), strict=True
            ):
                if not has:
                    continue
                gradient = torch.empty_like(parameter).copy_(part.view(parameter.shape))
                if parameter.grad is None:
                    parameter.grad = gradient
                else:
                    parameter.grad += gradient
        return total


def taken_gradients(module: nn.Module) -> list[Tensor | None]:
    """The gradients of a module's parameters, which have none afterwards."""
    gradients = [parameter.grad for parameter in module.parameters()]
    for parameter in module.parameters():
        parameter.grad = None
    return gradients
