"""Where the trainers are: the actor that a stream's gates, its workers and the driver all talk to.

A run has one. Where its ranks are several cells each cell has one more, for the gates of its stream: a block costs a
clock milliseconds, and a block that is lost in one stream must not open the gates of another. A cell's clock passes on
what it hears of phases and places, so the run's clock knows of everybody.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from system.data.placing import Place
from system.data.queues import Heard, StageNow
from system.data.reports import PhaseReport, Told
from system.errors import StreamFault

# A read actor works on one block after the other; if one that was lost with a node has to be made again, it queues
# behind a block that waits for trainers which wait for the lost one. So a gate lets through who has waited at it for
# longer than STARVED_S when a rank has waited for a block as long and no actor says that it works on any (what one said
# longer ago than SILENT_S was perhaps its last word), or when the trainers have not moved for STALL_S whoever says
# what; seconds.
STALL_S = 120.0
STARVED_S = 8.0
SILENT_S = 30.0
# How often that is looked at.
LOOK_S = 2.0
# A cell's clock gathers what it hears for so long before it passes it on, seconds.
GATHER_S = 1.0
# Longest wait for the clock itself, which answers at once, seconds; a gate's wait is cut into shorter ones.
CLOCK_S = 600.0
# A gate says at least so often that it is still shut, so that a clock that is frozen can be told from it, seconds.
GATE_S = 300.0

# Ray's own annotations lose the type of what comes back.
untyped_ray: Any = ray
# A handle of the actor `Clock`; Ray types what an unknown actor's methods return as nothing at all.
ClockHandle = Any


def wait_for(reference: Any, what: str = "the run's clock", deadline_s: float = CLOCK_S) -> Any:
    """Return the value of an object reference.

    Args:
        reference: of a value that is under way.
        what: is waited for, for the error.
        deadline_s: the longest wait.

    Raises:
        StreamFault: if it has not come by then.
    """
    try:
        return untyped_ray.get(reference, timeout=deadline_s)
    except ray.exceptions.GetTimeoutError as error:
        raise StreamFault(f"waited {deadline_s:.0f} s for {what}") from error


@dataclass(frozen=True, slots=True)
class Wish:
    """What the driver asks of the trainers.

    Attributes:
        number: counts the wishes of an attempt, from 1.
        what: `save` a checkpoint at the next step's end; or save it and `stop` there.
        reason: for the log.
    """

    number: int
    what: Literal["save", "stop"]
    reason: str


class Clock:
    """Where the trainers are: the gates' clock, and what the driver shows while a run is under way.

    An asyncio actor without a CPU. `stream` counts the streams of the run; who asks on behalf of an older one is let
    through, since nobody will read what it makes.

    Args:
        above: the run's clock, for that of a cell.
    """

    def __init__(self, above: ClockHandle | None = None) -> None:
        self._above, self._unsaid, self._saying = above, list[PhaseReport](), False
        self._of_cells: list[ClockHandle] = []
        self._stream = 0
        self._block = 0
        self._step = 0
        self._moved = asyncio.Condition()
        self._progress: dict[str, Any] = {}
        self._places: dict[tuple[str, str], Place] = {}
        self._wish = Wish(0, "save", "")
        self._stalls, self._moved_at = 0, time.monotonic()
        self._reports: dict[tuple[str, str], tuple[PhaseReport, float]] = {}
        self._at_hang: dict[tuple[str, str], Told] | None = None
        self._stages = Heard()

    async def keep(self, clocks: list[ClockHandle]) -> None:
        """Take down the clocks of the cells, in their order; none: this one serves the only stream."""
        self._of_cells = clocks

    async def of_cell(self, index: int) -> ClockHandle | None:
        """Return the clock of a cell; None: it is this one."""
        return self._of_cells[index] if self._of_cells else None

    async def open(self, step: int, block: int) -> int:
        """Begin a new stream at a step's first block; return its number."""
        async with self._moved:
            self._stream += 1
            self._step, self._block, self._moved_at = step, block, time.monotonic()
            self._moved.notify_all()
            return self._stream

    async def start(self) -> tuple[int, int]:
        """Return the number of the stream that is open, and the step that it starts at."""
        return self._stream, self._step

    async def advance(self, block: int, progress: dict[str, Any] | None = None) -> None:
        """Say that the trainers have taken a block, and how they are doing."""
        async with self._moved:
            self._block, self._moved_at = max(self._block, block), time.monotonic()
            if progress is not None:
                self._progress = {**progress, "told_at": time.time()}
            self._moved.notify_all()

    async def wait(self, stream: int, block: int, ahead: int) -> bool:
        """Return True when the trainers are within `ahead` blocks of `block`, or stand still for want of one.

        False, after some minutes, where they move and are not near yet: ask again.
        """
        began = time.monotonic()
        until = began + GATE_S
        async with self._moved:
            while stream >= self._stream and block >= self._block + ahead:
                now = time.monotonic()
                if now > until:
                    return False
                if now - max(self._moved_at, began) > STALL_S or (now - began > STARVED_S and self._starved(now)):
                    self._stalls += 1
                    return True
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), min(LOOK_S, STALL_S / 2))
            return True

    def _starved(self, now: float) -> bool:
        """Say whether a rank waits for a block that nobody makes."""
        told = self._told(now).values()
        waits = any(
            each.report.role == "rank" and each.report.phase == "data" and each.lasted_s > STARVED_S for each in told
        )
        works = any(each.report.role != "rank" and each.age_s < SILENT_S for each in told)
        return waits and not works

    async def stalls(self) -> int:
        """Return how often a gate opened because the trainers stood still."""
        return self._stalls

    async def ask(self, what: Literal["save", "stop"], reason: str) -> Wish:
        """Ask something of the trainers."""
        async with self._moved:
            self._wish = Wish(self._wish.number + 1, what, reason)
            self._moved.notify_all()
            return self._wish

    async def asked(self, after: int, seconds: float = 30.0) -> Wish | None:
        """Return the newest wish if its number is above `after`, waiting for one at most so long."""
        async with self._moved:
            try:
                await asyncio.wait_for(self._moved.wait_for(lambda: self._wish.number > after), seconds)
            except TimeoutError:
                return None
            return self._wish

    async def progress(self) -> dict[str, Any]:
        """Return what the trainers said last."""
        return self._progress

    async def report(self, report: PhaseReport) -> None:
        """Take down what a rank or an actor of a stage is doing, and pass it on: a hang at once, else with others."""
        self._take_down(report)
        if self._above is None:
            return
        self._unsaid.append(report)
        if report.level == "hang":
            self._pass_on()
        elif not self._saying:
            self._saying = True
            asyncio.get_running_loop().call_later(GATHER_S, self._pass_on)

    async def report_all(self, reports: list[PhaseReport]) -> None:
        """Take down what a cell's clock has heard."""
        for report in reports:
            self._take_down(report)

    def _pass_on(self) -> None:
        self._saying = False
        if self._above is not None and self._unsaid:
            self._above.report_all.remote(self._unsaid)
            self._unsaid = []

    def _take_down(self, report: PhaseReport) -> None:
        key, now = (report.role, report.name), time.monotonic()
        known = self._reports.get(key)
        # Ray keeps no order among the calls of an asyncio actor: the end of a block may come before its begin.
        if known is None or known[0].told_at <= report.told_at:
            self._reports[key] = (report, now)
        if report.level == "hang":
            if self._at_hang is None:
                self._at_hang = self._told(now)
            self._at_hang[key] = Told(report, 0.0)

    async def reports(self) -> list[Told]:
        """Return what everybody is doing; once a rank has hung, what everybody did at that moment.

        What the others say after that is of the end of the group, and hides who waited for whom.
        """
        told = self._told(time.monotonic()) if self._at_hang is None else self._at_hang
        return list(told.values())

    def _told(self, now: float) -> dict[tuple[str, str], Told]:
        return {key: Told(report, now - at) for key, (report, at) in self._reports.items() if report.phase is not None}

    async def landed(self, place: Place) -> None:
        """Take down where a process landed."""
        self._places[place.role, place.name] = place
        if self._above is not None:
            self._above.landed.remote(place)

    async def hear_stages(self, cell: int, stages: list[StageNow]) -> None:
        """Take down how full the stages of a cell's stream are."""
        self._stages.take(cell, stages, time.monotonic())
        if self._above is not None:
            self._above.hear_stages.remote(cell, stages)

    async def stages(self) -> list[StageNow]:
        """Return how full the stages are, those of all streams together."""
        return self._stages.now(time.monotonic())

    async def places(self) -> list[Place]:
        """Return where the processes landed that have said so."""
        return list(self._places.values())


def pass_gate(clock: ClockHandle, stream: int, block: int, ahead: int) -> None:
    """Wait until the trainers are within `ahead` blocks of `block`, however long they take.

    Raises:
        StreamFault: if the clock does not answer.
    """
    while not wait_for(clock.wait.remote(stream, block, ahead), f"the run's clock at the gate of block {block}"):
        pass


def make_clock(above: ClockHandle | None = None, node_id: str | None = None) -> ClockHandle:
    """Start a clock, which lives as long as the process that starts it.

    Args:
        above: the run's clock, for that of a cell.
        node_id: machine on which it lives; default: this one. So the run's is on the driver's, whatever others do.
    """
    there = NodeAffinitySchedulingStrategy(node_id or ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 10_000, "scheduling_strategy": there}
    handle: ClockHandle = untyped_ray.remote(**options)(Clock).remote(above)
    return handle


def clock_of(clock: ClockHandle, cell: int) -> ClockHandle:
    """Return the clock of a cell's stream, from the run's: where there is one stream alone, the run's.

    Raises:
        StreamFault: if the run's clock does not answer.
    """
    return wait_for(clock.of_cell.remote(cell), "the run's clock to name that of a cell") or clock
