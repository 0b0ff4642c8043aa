"""Learning rate, steps and warm-up from a recipe's numbers. Plain Python."""

from __future__ import annotations

import math


def scaled_lr(lr_per_256: float, batch: int) -> float:
    """Return the learning rate of a batch: linear scaling, `lr_per_256 * batch / 256` (VideoMAE scales min_lr too)."""
    return lr_per_256 * batch / 256


def num_steps(epochs: float, num_videos: int, slots_per_step: int) -> int:
    """Return the steps that train on every video `epochs` times; the last one may reach into the next epoch."""
    return max(1, math.ceil(epochs * num_videos / slots_per_step))


def lr_at(step: int, *, total: int, warmup: int, peak: float, final: float) -> float:
    """Return the learning rate of a step: linear from 0 to `peak`, then a cosine down to `final`.

    As VideoMAE's `cosine_scheduler` computes it: the warm-up's last step has the peak rate, the cosine's first one too.

    Args:
        step: from 0.
        total: steps of the run.
        warmup: steps of the warm-up, at most `total`.
        peak: highest rate.
        final: rate that the cosine approaches.
    """
    if step < warmup:
        return peak * step / max(1, warmup - 1)
    progress = (step - warmup) / max(1, total - warmup)
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * min(1.0, progress)))
