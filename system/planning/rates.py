"""A rate as a plan tells it: what it is, how far off it may be, and how it was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True, slots=True)
class Rate:
    """What one unit of a stage does.

    Attributes:
        clips_per_s: the rate.
        how: how it was found, for a person.
        error: standard error of it as a share, from the differences between the clips; 0 where that says nothing.
        measured: whether it was measured here; else it is assumed.
    """

    clips_per_s: float
    how: str
    error: float = 0.0
    measured: bool = True


def mean_rate(seconds: Sequence[float], clips: int) -> tuple[float, float]:
    """Return clips/s, and its standard error as a share, of turns of so many clips each.

    The rate is that of the mean, not the mean of rates: a video that takes long weighs as it does in a run.
    """
    count = len(seconds)
    mean = sum(seconds) / count
    if count < 2:
        return clips / mean, 0.0
    variance = sum((value - mean) ** 2 for value in seconds) / (count - 1)
    return clips / mean, sqrt(variance / count) / mean
