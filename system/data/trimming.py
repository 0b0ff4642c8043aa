"""Keeps the coordinator of a long stream small: drops what Ray Data remembers of blocks that have left.

Ray keeps statistics of every block in every operator until a stream ends, and an empty queue for every task whose
order it has kept: together about 8 kB a block, 800 MB after 100,000 blocks. Nobody reads them here. These are Ray's
internals: where a version has other names nothing is dropped, and the test of a long stream says so.
"""

from __future__ import annotations

import time
from typing import Any

from system.data.callbacks import Callback

# Seconds between two rounds.
EVERY_S = 1.0


class TrimStatistics(Callback):
    """A callback of Ray Data's executor, which makes one for each execution of a stream."""

    def __init__(self) -> None:
        self._last = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Drop what has gathered; called in the executor's own thread."""
        if time.monotonic() - self._last < EVERY_S:
            return
        self._last = time.monotonic()
        for operator in getattr(executor, "_topology", None) or ():
            statistics = getattr(operator, "_output_blocks_stats", None)
            if isinstance(statistics, list):
                statistics.clear()
            forget_finished(getattr(operator, "_output_queue", None))


def forget_finished(queue: Any) -> None:
    """Drop the empty queues of tasks that a queue which keeps order has passed."""
    inner, current = getattr(queue, "_inner", None), getattr(queue, "_current_key", None)
    finished = getattr(queue, "_finalized_keys", None)
    if not (isinstance(inner, dict) and isinstance(finished, set) and isinstance(current, int)):
        return
    for key in [key for key in inner if key < current and not inner[key]]:
        del inner[key]
    finished.difference_update([key for key in finished if key < current])
