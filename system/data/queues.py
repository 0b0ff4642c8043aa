"""How full the stages of a stream are: what stands before each of them, and how many of its actors work.

A coordinator tells its clock every two seconds; whoever watches the run asks the clock. These are Ray's internals: of
what a version has under other names nothing is told. Needs Python alone, so that a laptop reads what was told.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from system.data.callbacks import Callback

# Under which names a stream's context says which clock it tells, and which cell it is.
CLOCK, CELL = "tubelet_clock", "tubelet_cell"
# Seconds between two messages to the clock.
EVERY_S = 2.0
# What a coordinator said longer ago than this says nothing about now, seconds.
OLD_S = 30.0
# What Ray calls the operators of a stream (`data/pipeline.py`) -> the stage that they are. Before `read` there stand
# numbers alone, a thousand at once, which say nothing.
_OPERATORS = {"_Decode": "decode", "_Mask": "mask", "split(": "train"}


@dataclass(frozen=True, slots=True)
class StageNow:
    """A stage at one moment.

    Attributes:
        stage: `decode`, `mask`, or `train`: what waits to be taken by the ranks.
        queued: blocks that wait for it.
        busy: actors that have a block; None: it has no actors.
        actors: that are there; None: it has none.
    """

    stage: str
    queued: int
    busy: int | None = None
    actors: int | None = None


def stages_of(topology: Any) -> list[StageNow]:
    """Return the stages of an executor's operators, in their order.

    Args:
        topology: of Ray's executor: operator -> its state.
    """
    found = []
    for operator, state in dict(topology or {}).items():
        name = str(getattr(operator, "name", ""))
        stage = next((ours for theirs, ours in _OPERATORS.items() if theirs in name), None)
        if stage is None:
            continue
        with suppress(AttributeError, TypeError):
            queued = state.total_enqueued_input_blocks()
            if stage == "train":  # dealt out, and not taken yet
                queued += state.total_enqueued_output_blocks()
                found.append(StageNow(stage, queued))
            else:
                actors = operator.get_actor_info()
                found.append(StageNow(stage, queued, actors.active, actors.running))
    return found


def summed(cells: Iterable[Sequence[StageNow]]) -> list[StageNow]:
    """Add up the stages of several streams."""
    out: dict[str, StageNow] = {}
    for each in (stage for cell in cells for stage in cell):
        old = out.get(each.stage)
        if old is None:
            out[each.stage] = each
        else:
            busy, actors = _sum(old.busy, each.busy), _sum(old.actors, each.actors)
            out[each.stage] = StageNow(each.stage, old.queued + each.queued, busy, actors)
    return list(out.values())


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


class Heard:
    """What the coordinators of a run's streams said last."""

    def __init__(self) -> None:
        self._cells: dict[int, tuple[list[StageNow], float]] = {}

    def take(self, cell: int, stages: list[StageNow], now_s: float) -> None:
        """Take down what one of them says."""
        self._cells[cell] = (stages, now_s)

    def now(self, now_s: float) -> list[StageNow]:
        """Return all streams' stages together."""
        return summed(stages for stages, at_s in self._cells.values() if now_s - at_s <= OLD_S)


class TellStages(Callback):
    """A callback of Ray Data's executor: tells the clock how full the stages are."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def on_execution_step(self, executor: Any) -> None:
        """Tell it, now and then; called in the executor's own thread."""
        now = time.monotonic()
        if now - self._last < EVERY_S:
            return
        self._last = now
        context: Any = getattr(executor, "_data_context", None)
        stages = stages_of(getattr(executor, "_topology", None))
        if context is None or not stages:
            return
        clock = context.get_config(CLOCK)
        if clock is not None:
            clock.hear_stages.remote(context.get_config(CELL, 0), stages)
