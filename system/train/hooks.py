"""What the training loop asks of its surroundings, and on what terms it trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from system.train.progress import Progress

if TYPE_CHECKING:
    from system.train.recorder import Span
    from system.train.sums import Wanted


class Saver(Protocol):
    """What keeps a run's checkpoints; saving.py says when each of these is called."""

    def begin(self, after: Progress, span: Span) -> None:
        """Begin a checkpoint."""
        ...

    def written(self) -> bool:
        """Say whether this rank's part of it is written."""
        ...

    def commit(self) -> None:
        """Commit it, when all ranks have written theirs."""
        ...

    def finish(self) -> None:
        """Wait until it is committed."""
        ...


class NoSaver:
    """Keeps nothing."""

    def begin(self, after: Progress, span: Span) -> None:
        """Do nothing."""

    def written(self) -> bool:
        """Nothing is."""
        return False

    def commit(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Terms:
    """On what terms a start trains.

    Attributes:
        generation: of the run's lease; 0: none.
        skips: step -> why its videos are passed over: an earlier start could not train on them.
        reached: steps below this were done before, by a start whose work was lost.
    """

    generation: int = 0
    skips: Mapping[int, str] = field(default_factory=dict)
    reached: int = 0


@dataclass(frozen=True)
class Hooks:
    """What the loop calls besides training; each runs on every rank.

    Attributes:
        on_block: (block number) a block was taken.
        on_step: (progress, values) a step is done; the values are those of metrics.jsonl.
        saver: keeps checkpoints.
        wanted: what the driver wants, as far as this rank knows; a `save` is told once.
        at: (phase, detail) what the rank does from now on: `data`, `compute`, `update`, `collective`, `checkpoint`.
        terms: on what terms this start trains.
    """

    on_block: Callable[[int], None] = lambda block: None
    on_step: Callable[[Progress, dict[str, Any]], None] = lambda progress, values: None
    saver: Saver = field(default_factory=NoSaver)
    wanted: Callable[[], Wanted] = lambda: ""
    at: Callable[[str, str], None] = lambda phase, detail: None
    terms: Terms = field(default_factory=Terms)


class Seconds:
    """Where a rank's time has gone since its first step began: parts that add up to the whole.

    The wait for the first block is the stream's start, and a part of its own.
    """

    def __init__(self, reached: int) -> None:
        self._reached, self._mark = reached, time.monotonic()
        self.parts = {"start": 0.0, "compute": 0.0, "data_wait": 0.0, "checkpoint": 0.0, "replayed": 0.0}

    def step(self, step: int, wait_s: float, checkpoint_s: float) -> None:
        """Attribute the time since the last step's end."""
        now = time.monotonic()
        whole, self._mark = now - self._mark, now
        if not any(self.parts.values()):
            self.parts["start"], whole, wait_s = wait_s, whole - wait_s, 0.0
        if step < self._reached:
            self.parts["replayed"] += whole
            return
        self.parts["data_wait"] += wait_s
        self.parts["checkpoint"] += checkpoint_s
        self.parts["compute"] += whole - wait_s - checkpoint_s
