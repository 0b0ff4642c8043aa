"""Lets the coordinator of a stream reckon once a turn of its loop with what its operators use.

Ray Data adds up all operators' use of CPUs and of the object store, and shares the rest out among them, three times a
turn and once more for each task that it starts: more than half of what the coordinator computes. Between two turns,
a tenth of a second, little changes, and the gates hold the stream besides. These are Ray's internals: where a version
has other names nothing is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# A sum that is younger than this is not made again, seconds; a turn takes longer.
YOUNG_S = 0.05


def at_most_every(seconds: float, work: Callable[[], None]) -> Callable[[], None]:
    """Return what does some work, and nothing if it was done less than so many seconds ago."""
    done_at = -float("inf")

    def seldom() -> None:
        nonlocal done_at
        if time.monotonic() - done_at < seconds:
            return
        work()
        done_at = time.monotonic()

    return seldom


class ReckonOnceAStep:
    """A callback of Ray Data's executor, in whose process the change is made."""

    def before_execution_starts(self, executor: Any) -> None:
        """Change it for this execution."""
        manager: Any = getattr(executor, "_resource_manager", None)
        if manager is not None and callable(getattr(manager, "update_usages", None)):
            manager.update_usages = at_most_every(YOUNG_S, manager.update_usages)

    def on_execution_step(self, executor: Any) -> None:
        """Do nothing."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """Do nothing."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Do nothing."""
