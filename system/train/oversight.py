"""What the driver sees of an attempt that is under way, and what it asks of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import ray

from system.data.assemble import flow_device
from system.data.clock import ClockHandle, untyped_ray, wait_for
from system.data.placing import Place, placing_lines
from system.data.queues import StageNow
from system.errors import HangFault, StreamFault, TubeletError
from system.recipe import Recipe
from system.train.checkpoint import complete_steps
from system.train.diagnosis import Warnings, hang_of
from system.train.elastic import Room, may_grow, seen_room
from system.train.machines import CALL_S, draining
from system.train.preemption import Answered, margin_s, saves_due
from system.train.schedule import Schedule

Say = Callable[[str], None]
Show = Callable[[dict[str, Any], Schedule], None]

# How often a run that has not taken a step yet says so, seconds.
WAITING_S = 120.0
# How often notices are looked for, and room for more workers, seconds.
DRAINS_S = 1.0
ROOM_S = 5.0
# How often the driver looks whether something lasts longer than usual, seconds.
REPORTS_S = 5.0
# Longest wait for the clock's answer while other things are to be looked after, seconds.
ANSWER_S = 10.0


class _Timer:
    """When something was done last, and whether it is time again."""

    def __init__(self, every_s: float, *, at_once: bool = True) -> None:
        self._every_s = every_s
        self._last = float("-inf") if at_once else time.monotonic()

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._every_s:
            return False
        self._last = now
        return True


def _newest(run: str) -> int:
    """Return the newest checkpoint's step, 0 where there is none or storage does not answer just now."""
    with suppress(TubeletError):
        return max(complete_steps(run), default=0)
    return 0


class Oversight:
    """Looks after one attempt; every method returns at once.

    Args:
        recipe: of the run.
        clock: of the attempt.
        schedule: of the run.
        say: takes lines for the user.
        show: takes the trainers' newest values.

    Attributes:
        values: the trainers' newest values.
        drained: machines of theirs that are or were to be taken back.
        asked_to_end: the trainers were asked to end.
        asked_why: the reason of that; "" if they were not.
        places: of the processes that have said where they are.
    """

    def __init__(self, recipe: Recipe, clock: ClockHandle, schedule: Schedule, say: Say, show: Show) -> None:
        self._recipe, self._clock, self._schedule = recipe, clock, schedule
        self._say, self._show = say, show
        self.values: dict[str, Any] = {}
        self.drained: set[str] = set()
        self.places: list[Place] = []
        self._answered = Answered()
        self.asked_to_end, self.asked_why = False, ""
        self._ending_since = 0.0
        self._room: Room | None = None
        # Of the checkpoint that a notice has asked for: when, the newest one then, and how long it took, seconds.
        self._saving: tuple[float, int] | None = None
        self._save_s: float | None = None
        self._waiting, self._drains = _Timer(WAITING_S, at_once=False), _Timer(DRAINS_S)
        self._rooms, self._calls = _Timer(ROOM_S), _Timer(CALL_S)
        self._warnings, self._reports = Warnings(), _Timer(REPORTS_S)
        self._stages: Sequence[StageNow] = ()

    @property
    def trainers_on(self) -> set[str]:
        """Machines that the trainers are on."""
        return {place.node_id for place in self.places if place.role == "trainers"}

    def asked_for_s(self) -> float:
        """Return for how long the trainers have been asked to end, seconds."""
        return time.monotonic() - self._ending_since if self.asked_to_end else 0.0

    def look(self) -> None:
        """Take in what the trainers say, and pass it on."""
        try:
            values = wait_for(self._clock.progress.remote(), deadline_s=ANSWER_S)
            self.places = wait_for(self._clock.places.remote(), deadline_s=ANSWER_S)
        except (ray.exceptions.RayError, StreamFault):
            return
        if values:
            if not self.values:
                for line in placing_lines(self.places, all_roles=flow_device(self._recipe) == "cuda"):
                    self._say(line)
            self.values = values
            self._show({**values, "stages": self._stages}, self._schedule)
        elif self._waiting.due():
            have = untyped_ray.available_resources()
            free = {name: amount for name, amount in have.items() if name in ("CPU", "GPU")}
            self._say(f"waiting for the first step; the cluster has {free} free")

    def say_who_waits(self) -> None:
        """Pass on who waits for whom, when something lasts longer than usual, and take in how full the stages are."""
        if not self._reports.due():
            return
        with suppress(ray.exceptions.RayError, StreamFault):
            self._stages = wait_for(self._clock.stages.remote(), deadline_s=ANSWER_S)
            for line in self._warnings.lines(wait_for(self._clock.reports.remote(), deadline_s=ANSWER_S)):
                self._say(line)

    def hang(self) -> HangFault | None:
        """Return what hung, if a rank's watchdog has ended the attempt."""
        with suppress(ray.exceptions.RayError, StreamFault):
            return hang_of(wait_for(self._clock.reports.remote(), deadline_s=ANSWER_S))
        return None

    def _ask(self, what: str, reason: str) -> None:
        self._say(f"{reason}: the workers {'save and end' if what == 'stop' else 'save'} at the next step's end")
        with suppress(ray.exceptions.RayError, StreamFault):  # who does not hear it has ended, and so has the attempt
            wait_for(self._clock.ask.remote(what, reason), deadline_s=ANSWER_S)

    def ask_to_end(self, reason: str) -> None:
        """Ask the trainers, once, to save and to end."""
        if not self.asked_to_end:
            self.asked_to_end, self.asked_why, self._ending_since = True, reason, time.monotonic()
            self._ask("stop", reason)

    def answer_drains(self, run: str) -> None:
        """Ask for the checkpoints that machines are owed which will be taken back.

        Args:
            run: the run's folder, to see how long a checkpoint takes.
        """
        if not self._drains.due() or self.asked_to_end:
            return
        leaving, ours = draining(), self.trainers_on
        self.drained |= ours & set(leaving)
        if self._saving is not None and _newest(run) > self._saving[1]:
            self._save_s, self._saving = time.monotonic() - self._saving[0], None
        self._answered, reasons = saves_due(self._answered, leaving, ours, time.time(), margin_s(self._save_s))
        if reasons:
            # One that was under way already holds no later step than the trainers' last.
            under_way = int(self.values["step"]) + 1 if self.values else 0
            self._saving = (time.monotonic(), max(_newest(run), under_way))
            self._ask("save", "; ".join(reasons))

    def look_for_room(self, running: int, fitting: Callable[[], int | None], call: Callable[[], None]) -> None:
        """Ask the trainers to end when there has been room for more of them for a while.

        Args:
            running: workers of this attempt.
            fitting: returns how many the machines have room for.
            call: asks the autoscaler for machines for the others.
        """
        if self.asked_to_end or not self.values or not self._rooms.due():
            return
        now = time.monotonic()
        self._room = seen_room(self._room, fitting(), running, now)
        if self._room is not None and may_grow(self._room, now):
            self.ask_to_end(f"room for {self._room.ranks} workers")
        elif self._room is None and self._calls.due():
            call()
