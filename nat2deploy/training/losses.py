"""Classification losses, of one exit and of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ExitWeights = Literal["ascending", "descending"]
"""Which exits count most, the late or the early ones."""
LABEL_SMOOTHING = 0.1
# OFAv2's released code; near i / (1 + ... + 5), which stands for other numbers of stages.
_FIVE_EXITS = (0.06, 0.13, 0.20, 0.27, 0.34)


def exit_weights(exits: Sequence[int], stages: int, order: ExitWeights = "ascending") -> tuple[float, ...]:
    """Weights, adding up to 1, of the losses and of the ensemble of ``exits`` (stages from 1).

    They ascend in OFAv2's training (Sarti et al., 2023), and descend in NAT2's search; of fewer exits than
    stages, the same in proportion.
    """
    ladder = _FIVE_EXITS if stages == len(_FIVE_EXITS) else tuple(map(float, range(1, stages + 1)))
    if order == "descending":
        ladder = ladder[::-1]
    chosen = [ladder[stage - 1] for stage in exits]
    return tuple(weight / sum(chosen) for weight in chosen)


def guidance(teacher: nn.Module | None, images: Tensor) -> Tensor | None:
    """A teacher's logits [B, classes] for images [B, 3, r, r], without gradients; None without a teacher."""
    if teacher is None:
        return None
    with torch.no_grad():
        logits: Tensor = teacher(images)
    return logits


def distillation_loss(
    logits: Tensor,
    targets: Tensor,
    teacher_logits: Tensor | None,
    ratio: float,
    smoothing: float = LABEL_SMOOTHING,
) -> Tensor:
    """``ratio`` × cross-entropy with the teacher's softmax + cross-entropy with the labels.

    Logits are [B, classes], targets [B]. Without a teacher only the labels count, smoothed
    (Once-For-All's released code).
    """
    labels = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    if teacher_logits is None:
        return labels
    return ratio * F.cross_entropy(logits, F.softmax(teacher_logits, dim=1)) + labels


def exits_loss(
    logits: Sequence[Tensor],
    weights: Sequence[float],
    targets: Tensor,
    teacher_logits: Tensor | None,
    ratio: float,
    smoothing: float = LABEL_SMOOTHING,
) -> Tensor:
    """The weighted sum of every exit's ``distillation_loss``; logits are [B, classes] an exit."""
    losses = [distillation_loss(one, targets, teacher_logits, ratio, smoothing) for one in logits]
    if len(losses) == 1:
        return losses[0]
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()
