"""How well a mask that was found covers the true one: region similarity J and contour accuracy F.

The measures of DAVIS (Perazzi et al., CVPR 2016, section 4) with the settings of DAVIS-2017's public evaluation: J is
intersection over union; F is the harmonic mean of precision and recall of the contours' pixels, which match within
0.8 % of the picture's diagonal. Where the public evaluation counts frames of a sequence with 8 bits, which goes wrong
above 256, this does not.

H x W px, n scored frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Numbers = NDArray[np.uint8]
Values = NDArray[np.float64]

# Share of the diagonal within which contours match.
TOLERANCE = 0.008
# A frame counts as found above this value (recall).
FOUND = 0.5
# Quarters of a sequence of which decay compares the first and the last.
QUARTERS = 4


@dataclass(frozen=True, slots=True)
class Statistics:
    """One measure of one object over a sequence.

    Attributes:
        mean: over the frames.
        recall: share of the frames above 0.5.
        decay: mean of the first quarter of the frames less that of the last.
    """

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """J and F of one object."""

    region: Statistics
    contour: Statistics


def region_similarity(truth: Mask, found: Mask) -> float:
    """Return J: intersection over union of two (H, W) masks; 1 where both are empty."""
    union = int((truth | found).sum())
    return int((truth & found).sum()) / union if union else 1.0


def tolerance_px(height: int, width: int) -> int:
    """Return the distance within which contours match, px: 0.8 % of the diagonal, rounded up."""
    return math.ceil(TOLERANCE * math.hypot(height, width))


def contour(mask: Mask) -> Mask:
    """Return the pixels that differ from their neighbour to the right, below, or both: (H, W).

    So a contour lies half a pixel towards the origin, and the frame's own edge is none.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    changes = (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])
    return np.asarray(changes, np.bool_)


def _disk(radius: int) -> NDArray[np.uint8]:
    """Return the pixels of a square that lie at most `radius` from its middle."""
    steps = np.arange(-radius, radius + 1)
    return (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.uint8)


def contour_accuracy(truth: Mask, found: Mask, within_px: int) -> float:
    """Return F of two (H, W) masks.

    Args:
        truth: the true mask.
        found: the other one.
        within_px: distance within which pixels of the contours match; `tolerance_px` of the frame.

    Returns:
        Harmonic mean of the share of found pixels near true ones and of true ones near found ones; 1 where neither
        mask has a contour, 0 where one has none.
    """
    true, mine = contour(truth), contour(found)
    num_true, num_mine = int(true.sum()), int(mine.sum())
    if not num_true or not num_mine:
        return float(num_true == num_mine)
    rows, cols = (np.flatnonzero((true | mine).any(axis)) for axis in (1, 0))
    cut = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))  # nothing matches elsewhere
    true, mine = true[cut], mine[cut]
    disk = _disk(within_px)
    precision = int((mine & (cv2.dilate(true.astype(np.uint8), disk) > 0)).sum()) / num_mine
    recall = int((true & (cv2.dilate(mine.astype(np.uint8), disk) > 0)).sum()) / num_true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def statistics(values: Sequence[float] | Values) -> Statistics:
    """Return mean, recall and decay of one measure over the n scored frames of a sequence.

    A quarter ends with the frame that the next begins with, as in the public evaluation.
    """
    series = np.asarray(values, np.float64)
    # Rounded half up.
    ends = np.floor(np.linspace(0, len(series) - 1, QUARTERS + 1) + 0.5 + 1e-10).astype(np.int64)
    first, last = series[ends[0] : ends[1] + 1], series[ends[-2] : ends[-1] + 1]
    return Statistics(float(series.mean()), float((series > FOUND).mean()), float(first.mean() - last.mean()))


def frame_scores(truth: Numbers, found: Numbers, objects: Sequence[int]) -> Values:
    """Score every object in one frame.

    Args:
        truth: (H, W) numbers of objects.
        found: (H, W), the other mask.
        objects: the numbers that count.

    Returns:
        (objects, 2) J and F.
    """
    within = tolerance_px(*truth.shape)
    pairs = [(truth == number, found == number) for number in objects]
    return np.array([(region_similarity(*pair), contour_accuracy(*pair, within)) for pair in pairs])


def object_scores(frames: Sequence[Values]) -> list[ObjectScores]:
    """Put the scores of the frames that count together: n of (objects, 2) -> one for each object."""
    values = np.stack(frames, 1)  # (objects, n, 2)
    return [ObjectScores(statistics(each[:, 0]), statistics(each[:, 1])) for each in values]


def summary(objects: Sequence[ObjectScores]) -> dict[str, float]:
    """Return the figures of some objects as the public evaluation names them.

    Means are over objects: a sequence of three counts three times.
    """
    figures = {
        f"{letter}-{name.capitalize()}": float(np.mean([getattr(getattr(each, measure), name) for each in objects]))
        for letter, measure in (("J", "region"), ("F", "contour"))
        for name in ("mean", "recall", "decay")
    }
    return {"J&F-Mean": (figures["J-Mean"] + figures["F-Mean"]) / 2, **figures}
