"""Per-clip losses. A clip's loss is its own mean, so that cutting a batch differently changes nothing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mean_squared(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error of each clip in float32.

    Args:
        predicted: (B, M, P), a prediction for each of M tokens.
        wanted: (B, M, P).

    Returns:
        (B,) float32.
    """
    return F.mse_loss(predicted.float(), wanted.float(), reduction="none").flatten(1).mean(1)
