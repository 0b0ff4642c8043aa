"""Which kind is killed next, which process of it, and when: seeded draws and a clock that somebody else reads."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to a run.

    Attributes:
        kinds: what is killed, of `words.KINDS`.
        every_s: seconds from the first checkpoint after a recovery to the next kill.
        replace_after_s: seconds from a node's end to the start of another.
        seed: of the draws.
        most: kills at most; None: until the run is complete.
    """

    kinds: tuple[str, ...]
    every_s: float
    replace_after_s: float
    seed: int
    most: int | None = None


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
        trained_at: when a step was trained again.
        committed_at: when a checkpoint was written again.
    """

    kind: str
    pid: int
    at: float
    step: int
    trained_at: float | None = None
    committed_at: float | None = None


class Timetable:
    """Says when a kill is due: `every_s` after the first checkpoint since the run recovered from the last one.

    Args:
        every_s: seconds.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._newest = 0  # step of the newest checkpoint; 0: none yet
        self._beyond = 0  # a checkpoint beyond this one starts the clock
        self._since: float | None = None
        self._recovering = False

    def saw(self, committed: int, now: float) -> bool:
        """Take the newest checkpoint's step; say whether it is the first since the recovery."""
        self._newest = max(self._newest, committed)
        if self._recovering or self._since is not None or committed <= self._beyond:
            return False
        self._since = now
        return True

    def due(self, now: float) -> bool:
        """Say whether the next kill is due."""
        return self._since is not None and now - self._since >= self._every_s

    @property
    def settled(self) -> bool:
        """Whether a checkpoint has been written since the last recovery: no process is still on its way up."""
        return self._since is not None

    def killed(self) -> None:
        """Take that something was killed: checkpoints count again when the run has recovered."""
        self._since, self._recovering = None, True

    def recovered(self) -> None:
        """Take that a step was trained again."""
        self._recovering, self._beyond = False, self._newest
