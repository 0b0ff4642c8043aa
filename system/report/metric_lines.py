"""metrics.jsonl as columns: what curves and verdicts are made of.

Rows are logged steps, in order. A value that is missing or was not finite is nan, and so is one that is no number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Metrics:
    """A run's logged steps.

    Attributes:
        columns: name -> (R,) float64; `step` is always there.
        unreadable: lines that are no JSON object with a step; they are left out.
    """

    columns: dict[str, Values]
    unreadable: int = 0

    def __len__(self) -> int:
        """Return R, the logged steps."""
        return len(self.columns["step"])

    def __getitem__(self, name: str) -> Values:
        """Return a column; of a name that no line has, nan."""
        return self.columns.get(name, np.full(len(self), np.nan))

    def has(self, name: str) -> bool:
        """Say whether a column has a finite value."""
        return bool(np.isfinite(self[name]).any())

    def names(self, prefix: str) -> list[str]:
        """Return the names of columns that begin so and have a finite value, sorted."""
        return sorted(name for name in self.columns if name.startswith(prefix) and self.has(name))

    def finite(self, name: str) -> Values:
        """Return the finite values of a column, in the order of the steps."""
        values = self[name]
        return values[np.isfinite(values)]


def read_lines(lines: Iterable[bytes | str]) -> Metrics:
    """Read the lines of a metrics.jsonl; of two lines of one step the later counts."""
    taken: dict[str, list[float]] = {"step": []}
    unreadable = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            step = float(values["step"])
        except (ValueError, KeyError, TypeError):
            unreadable += 1
            continue
        count = len(taken["step"])
        taken["step"].append(step)
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float):
                column = taken.setdefault(name, [])
                column.extend([np.nan] * (count - len(column)))
                column.append(float(value))
    return Metrics(_in_order(taken), unreadable)


def _in_order(taken: dict[str, list[float]]) -> dict[str, Values]:
    """Make columns of one length, sorted by step, each step once."""
    count = len(taken["step"])
    columns = {name: np.array([*values, *[np.nan] * (count - len(values))]) for name, values in taken.items()}
    for values in columns.values():
        values[~np.isfinite(values)] = np.nan  # json reads Infinity
    _, last = np.unique(columns["step"][::-1], return_index=True)
    rows = count - 1 - last
    return {name: values[rows] for name, values in columns.items()}
