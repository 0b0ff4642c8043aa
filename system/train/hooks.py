"""What the training loop asks of its surroundings, and on what terms it trains."""

from __future__ import annotations

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
