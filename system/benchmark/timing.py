"""Figures that can be compared: contenders take turns, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Self


@dataclass(frozen=True, slots=True)
class Measured:
    """Rates of one contender, one a repeat, items a second."""

    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        """The rate that is told."""
        return median(self.rates)

    @property
    def spread(self) -> float:
        """(Largest - smallest) / median."""
        return (max(self.rates) - min(self.rates)) / self.median


def interleaved(
    contenders: Mapping[str, Callable[[], int]],
    repeats: int,
    *,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Measured]:
    """Run contenders in turn, each as often, and return what each did in a second.

    Args:
        contenders: by name, a function that does some work and returns how many items it did (> 0).
        repeats: rounds that count; in every second one the order is reversed, so that nobody is always first.
        warm: rounds before them that do not.
        clock: seconds; another one in tests.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-warm, repeats):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in names:
            began = clock()
            items = contenders[name]()
            took = clock() - began
            if number >= 0:
                rates[name].append(items / took)
    return {name: Measured(tuple(values)) for name, values in rates.items()}


class Stopwatch:
    """Counts the time inside of its context: a clock for `interleaved` where a contender has work that does not count.

    Args:
        clock: seconds; another one in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._began, self._counted = clock, 0.0, 0.0

    def __enter__(self) -> Self:
        self._began = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self._counted += self._clock() - self._began

    def __call__(self) -> float:
        """Return what is counted so far, seconds."""
        return self._counted


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core: a rate is then one core's.

    Threads that already run keep what they have; call this before libraries make theirs.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
