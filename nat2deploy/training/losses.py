"""Classification losses."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

LABEL_SMOOTHING = 0.1


def distillation_loss(logits: Tensor, targets: Tensor, teacher_logits: Tensor | None, ratio: float) -> Tensor:
    """``ratio`` × cross-entropy with the teacher's softmax + cross-entropy with the labels.

    Logits are [B, classes], targets [B]. Without a teacher only the labels count, smoothed by 0.1
    (Once-For-All's released code).
    """
    if teacher_logits is None:
        return F.cross_entropy(logits, targets, label_smoothing=LABEL_SMOOTHING)
    soft = F.cross_entropy(logits, F.softmax(teacher_logits, dim=1))
    return ratio * soft + F.cross_entropy(logits, targets, label_smoothing=LABEL_SMOOTHING)
