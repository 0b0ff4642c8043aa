"""How a run stands, as rank 0 tells it after each step; the driver exports it (watch.py)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from system.train.progress import Progress


class Standing:
    """Rank 0's part: how the run stands after a step, as plain values.

    Args:
        ranks: that train.
        kept: steps that the checkpoint holds which this start began from; 0: none.
    """

    def __init__(self, ranks: int, kept: int) -> None:
        self._ranks, self._kept = ranks, kept
        self._codes: dict[str, int] = {}
        self._counted = 0

    def kept(self, progress: Progress) -> None:
        """Take down that a checkpoint was committed."""
        self._kept = progress.step

    def after(self, progress: Progress) -> dict[str, Any]:
        """Return how the run stands."""
        if len(progress.quarantine) != self._counted:  # counted when it has grown: it may hold thousands
            self._codes = dict(Counter(code for code, _ in progress.quarantine.values()))
            self._counted = len(progress.quarantine)
        return {
            "ranks": self._ranks,
            "checkpoint": self._kept,
            "errors": self._codes,
            "bad_ratio": progress.bad_ratio,
            "slots": progress.slots,
            "substituted": progress.substituted,
            "skipped": progress.skipped,
            "fallback": progress.fallback,
        }
