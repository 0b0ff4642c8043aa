"""Which kind is killed next, which process of it, and when: seeded draws and a clock that somebody else reads."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


def sequence(kinds: Sequence[str], seed: int) -> Iterator[str]:
    """Yield kinds without an end: round after round, each with every kind once, in an order of its own."""
    draw = random.Random(f"kinds/{seed}")
    while kinds:
        around = list(kinds)
        draw.shuffle(around)
        yield from around


def victim(alive: Sequence[T], seed: int, number: int) -> T:
    """Choose one of the processes that could be killed, by the number of the kill."""
    return alive[random.Random(f"victim/{seed}/{number}").randrange(len(alive))]


@dataclass(slots=True)
class Kill:
    """One kill and what followed. Times are seconds of one clock; None: not yet.

    Attributes:
        kind: of `words.KINDS`.
        pid: of the process, the raylet's for a machine.
        at: when.
        step: the last step that was seen to be trained before it.
        committed: the last checkpoint before it.
        trained_at: when a step was trained again.
        committed_at: when a checkpoint was written again.
    """

    kind: str
    pid: int
    at: float
    step: int
    committed: int
    trained_at: float | None = None
    committed_at: float | None = None


class Timetable:
    """Says when a kill is due: `every_s` after the first checkpoint since the last one.

    Args:
        every_s: seconds.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._committed = -1  # the newest step of a checkpoint
        self._since: float | None = None
        self._waited_for = 0  # a checkpoint beyond this one starts the clock

    def saw(self, committed: int, now: float) -> bool:
        """Take the newest checkpoint's step (0: none yet); say whether it is the first since the last kill."""
        self._committed = max(self._committed, committed)
        if self._since is None and committed > self._waited_for:
            self._since = now
            return True
        return False

    def due(self, now: float) -> bool:
        """Say whether the next kill is due."""
        return self._since is not None and now - self._since >= self._every_s

    def killed(self) -> None:
        """Wait for the next checkpoint from now on."""
        self._since, self._waited_for = None, max(0, self._committed)
