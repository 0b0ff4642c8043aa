"""How many videos a classifier puts right: counted once each, exactly, by class. Pure.

Classes are ranked by their probability; of equal ones the class with the lower number stands first, so that a result
does not depend on who computed it. How often that decided is counted.

n videos, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Classes of an answer that are looked at.
WITHIN = 5


def ranked(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the classes with the highest values, the highest first: (n, C) -> (n, min(5, C))."""
    return np.argsort(-values, 1, kind="stable")[:, :WITHIN]


@dataclass(slots=True)
class Tally:
    """Counts of answers.

    Attributes:
        classes: C.
        confusion: (C, C + 1) int64, videos by their class and by the class that they were given; in the last column
            those without an answer.
        hits: (C,) int64, videos of each class whose class is among the five highest.
        tied: videos whose highest value several classes have.
    """

    classes: int
    confusion: NDArray[np.int64] = field(init=False)
    hits: NDArray[np.int64] = field(init=False)
    tied: int = 0

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.classes, self.classes + 1), np.int64)
        self.hits = np.zeros(self.classes, np.int64)

    def take(self, labels: NDArray[np.int64], values: NDArray[np.floating], there: NDArray[np.bool_]) -> Tally:
        """Count answers.

        Args:
            labels: (n,) in [0, C).
            values: (n, C) of at least 0, the higher the likelier; a class with 0 is not among the five.
            there: (n,), whether there is an answer; without one, or with one that is no number, a video is wrong.

        Returns:
            Itself.
        """
        there = there & np.isfinite(values).all(1)
        order = ranked(values)
        given = np.where(there, order[:, 0], self.classes)
        np.add.at(self.confusion, (labels, given), 1)
        guessed = np.take_along_axis(values, order, 1) > 0  # or classes without a vote would count, the lowest first
        within = ((order == labels[:, None]) & guessed).any(1) & there
        np.add.at(self.hits, labels[within], 1)
        self.tied += int((((values == values.max(1, keepdims=True)).sum(1) > 1) & there).sum())
        return self

    @property
    def of_class(self) -> NDArray[np.int64]:
        """Videos of each class: (C,)."""
        return np.asarray(self.confusion.sum(1))

    @property
    def videos(self) -> int:
        """Videos that were counted."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of the videos whose class stands first."""
        return float(np.trace(self.confusion) / self.videos)

    @property
    def top5(self) -> float:
        """Share of the videos whose class is among the five highest."""
        return float(self.hits.sum() / self.videos)

    @property
    def per_class(self) -> NDArray[np.float64]:
        """Share of each class's videos whose class stands first: (C,); nan where there are none."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.diagonal(self.confusion) / self.of_class)

    @property
    def mean_class(self) -> float:
        """Mean of that over the classes that have videos."""
        return float(np.nanmean(self.per_class))
