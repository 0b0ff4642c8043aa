"""What a histogram of codes says about the labels that a model has to predict."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def perplexity(histogram: Tensor) -> float:
    """Return the perplexity of labels with these counts: exp of their entropy, from 1 to the number of codes.

    Its logarithm is the cross-entropy, nats, of always predicting the labels' own frequencies: what a model that
    ignores its input can reach, and has to beat otherwise.

    Args:
        histogram: (codes,) counts.
    """
    share = histogram.double() / histogram.sum().clamp_min(1)
    return math.exp(float(torch.special.entr(share).sum()))


def code_histogram(codes: Tensor, num_codes: int) -> Tensor:
    """Count how often each code is given: int64 of any shape -> (num_codes,) int64."""
    return torch.bincount(codes.flatten(), minlength=num_codes)
