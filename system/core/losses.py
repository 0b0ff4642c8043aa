"""Per-clip losses. A clip's loss is its own mean, so that cutting a batch differently changes nothing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mean_squared(predicted: Tensor, wanted: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the mean squared error of each clip in float32.

    Args:
        predicted: (B, K, P), a prediction for each of K tokens.
        wanted: (B, K, P).
        counted: (B, K), 1 for the tokens that count and 0 for the others; None: all count.

    Returns:
        (B,) float32; 0 for a clip of which no token counts.
    """
    errors = F.mse_loss(predicted.float(), wanted.float(), reduction="none")
    return errors.flatten(1).mean(1) if counted is None else counted_mean(errors.mean(2), counted)


def mixed_cross_entropy(logits: Tensor, label: Tensor, other: Tensor, share: Tensor, smoothing: float) -> Tensor:
    """Return the cross-entropy of each clip with a smoothed mixture of two labels, in float32, nats.

    The target is share * e(label) + (1 - share) * e(other), where e(k) is 1 - smoothing + smoothing / C at class k and
    smoothing / C at all others, as timm's mixup makes it.

    Args:
        logits: (B, C).
        label: (B,) int64.
        other: (B,) int64, the label of the clip that it is mixed with.
        share: (B,) in [0, 1], the part of `label`.
        smoothing: in [0, 1).

    Returns:
        (B,) float32.
    """
    each = [
        F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
        for labels in (label, other)
    ]
    return share * each[0] + (1 - share) * each[1]


def counted_mean(errors: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of each clip's errors over the tokens that count: two (B, K) -> (B,)."""
    return (errors * counted).sum(1) / counted.sum(1).clamp_min(1)


def mean_cross_entropy(logits: Tensor, labels: Tensor, num_codes: int) -> Tensor:
    """Return the mean cross-entropy of each clip in float32, nats.

    Args:
        logits: (B, K, n * num_codes), n labels for each of K tokens.
        labels: (B, K, n) int64.
        num_codes: number of codes.

    Returns:
        (B,) float32.
    """
    each = F.cross_entropy(logits.float().reshape(-1, num_codes), labels.reshape(-1), reduction="none")
    return each.reshape(len(labels), -1).mean(1)
