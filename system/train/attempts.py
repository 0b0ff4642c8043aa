"""Attempts of a run, one after the other, until it has reached its stop: what Ray Train carries out, and what follows.

Ray Train carries out one attempt with a fixed number of workers. Failures, machines that are taken back, the number of
workers and orders to stop are this file's; failures.py, preemption.py and elastic.py do the judging.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from contextlib import suppress
from typing import Literal

import ray

from system import logs
from system.data.clock import ClockHandle, make_clock
from system.data.dataset import run_uri
from system.errors import DivergedFault, SystemFault, TubeletError
from system.recipe import Recipe
from system.section import fewest, most
from system.train import checkpoint, failures
from system.train.elastic import all_bundles, is_elastic, largest_that_fits, told_workers, worker_bundle
from system.train.fit import Fit
from system.train.goodput import Book
from system.train.hooks import Terms
from system.train.launch import RunState, runs_raft_on_cpus, use_gpu
from system.train.machines import CALL_S, call_for, draining, machines
from system.train.oversight import Oversight, Say, Show
from system.train.shift import Shift
from system.train.skips import extend_skips, read_skips, skip_lines, skips_uri, told_videos
from system.train.streams import Job

# How often the driver looks after an attempt, and after machines that it waits for, seconds.
LOOK_S = 0.5
WAIT_LOOK_S = 2.0
# How often a wait says so, seconds.
SAY_S = 120.0
# A number of workers that found no room is not tried again for this long, seconds.
NO_ROOM_S = 60.0
# ... doubled each time, up to this.
MOST_NO_ROOM_S = 3600.0
# How long a group may take to find its machines when another number of workers may, seconds.
START_S = "15"
# ... and where none may; then the next attempt asks for the machines again.
FIXED_START_S = "300"
# When a process may have died, machines are looked at for this long, seconds: one ends a moment after its processes.
AFTER_DEATH_S = 1.0

Ending = Literal["done", "stopped"]


def train(recipe: Recipe, state: RunState, *, say: Say, show: Show, shift: Shift | None = None) -> Ending:
    """Run attempts until the run has reached its stop.

    Args:
        recipe: of the run.
        state: from `open_run`.
        say: takes lines for the user.
        show: takes the newest values of the trainers, about twice a second.
        shift: what the job holds.

    Returns:
        `done` at the run's stop, `stopped` when the job was told to end before it.

    Raises:
        UserError: what the user has to mend; LeaseError among them, when another job has taken the run over.
        SystemFault: when the budget of failures is spent, or a step fails twice in the same way.
    """
    shift = shift or Shift(Book(run_uri(recipe), 0, time.time()))
    # Once: a later attempt may begin while the cluster still replaces its only node with GPUs.
    gpu = use_gpu(recipe)
    if gpu and runs_raft_on_cpus(recipe):
        say("motion.source=raft runs on CPUs, many times slower than training: set resources.mask.gpus_per_actor")
    return _Attempts(recipe, state, shift, say, show, gpu=gpu).run()


class _Attempts:
    def __init__(self, recipe: Recipe, state: RunState, shift: Shift, say: Say, show: Show, *, gpu: bool) -> None:
        self._recipe, self._state, self._shift = recipe, state, shift
        self._say, self._show, self._gpu = say, show, gpu
        self._run = run_uri(recipe)
        self._history: list[failures.Failure] = []
        # Steps of the newest checkpoint, at the last failure and at the last look.
        self._kept = self._from = state.progress.step
        # Number of workers -> until when it is not tried again, and how often it found no room.
        self._no_room: dict[int, float] = {}
        self._no_rooms: Counter[int] = Counter()
        self._there: set[str] = set()
        self._called = False
        self._said_no_room = float("-inf")
        self._caller = f"tubelet-{uuid.uuid4().hex[:8]}"
        start_s = START_S if is_elastic(recipe) else FIXED_START_S
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", start_s)

    def run(self) -> Ending:
        shift = self._shift
        shift.book.reached = max(shift.book.reached, self._kept)
        skipped = sorted(read_skips(self._run))
        if skipped:
            self._say(f"steps {', '.join(map(str, skipped))} are skipped, as {skips_uri(self._run)} says")
        try:
            return self._all()
        finally:
            if self._called:
                self._call([])

    def _all(self) -> Ending:
        shift = self._shift
        while not shift.stop.is_set():
            shift.make_way()
            ranks = self._ranks()
            if ranks is None:
                break
            shift.book.begin()
            shift.starts.begin(self._from, ranks)
            clock = make_clock()
            seen = Oversight(self._recipe, clock, self._state.schedule, self._say, self._show)
            error: Exception | None
            try:
                error = self._attempt(ranks, clock, seen)
                self._from = self._newest() if error is None else self._from
                if error is None and self._from >= self._state.schedule.stop:
                    self._end(seen, None)
                    return "done"
                if error is None and not (seen.asked_to_end or shift.stop.is_set()):
                    stop = self._state.schedule.stop
                    error = SystemFault(f"the workers ended before step {stop}, and nobody asked them to")
            except SystemFault as fault:  # storage does not answer the driver
                error = fault
            except BaseException as error_of_user:
                self._end(seen, error_of_user)
                raise
            finally:
                ray.kill(clock)
            self._end(seen, error)
            if error is not None and shift.stop.is_set():
                self._say(f"on the way to the stop: {failures.told(error)}; the last checkpoint stands")
            elif error is not None:
                self._judge(error, seen, ranks)
        return "stopped"

    def _end(self, seen: Oversight, error: BaseException | None) -> None:
        """Say in the job's books that an attempt has ended, and with what."""
        self._shift.book.end(failed=error is not None)
        why = failures.told(error) if error is not None else seen.asked_why
        self._shift.starts.end(why, seen.values)

    def _newest(self) -> int:
        with suppress(TubeletError):
            found = checkpoint.latest(self._run)
            return found.step if found else 0
        return self._kept

    def _fitting(self) -> int | None:
        """Return the largest number of workers that the machines have room for now."""
        now = time.monotonic()
        without = [ranks for ranks, until in self._no_room.items() if now < until]
        there = [machine.resources for machine in machines()]
        return largest_that_fits(self._recipe, there, gpu=self._gpu, without=without)

    def _call(self, bundles: list[dict[str, float]]) -> None:
        self._called = True
        call_for(bundles, self._caller)

    def _ranks(self) -> int | None:
        """Return how many workers the next attempt has, once there is room for them; None: told to stop on the way."""
        low = fewest(self._recipe.resources.num_workers)
        if not is_elastic(self._recipe):
            return low
        said = called = float("-inf")
        while (ranks := self._fitting()) is None:
            now = time.monotonic()
            if now - said > SAY_S:
                said = now
                self._say(f"waiting for machines: {len(machines())} are there, without room for {low} workers")
            if now - called > CALL_S:
                called = now
                self._call(all_bundles(self._recipe, low, gpu=self._gpu))
            self._shift.check()
            if self._shift.stop.wait(WAIT_LOOK_S):
                return None
        if called > 0:
            self._call([])
        self._say(f"{ranks} of {told_workers(self._recipe)} workers have room")
        return ranks

    def _attempt(self, ranks: int, clock: ClockHandle, seen: Oversight) -> Exception | None:
        """Start a worker group and look after it until its end; return what it ended with."""
        hold, book = self._shift.hold, self._shift.book
        self._there = {machine.node_id for machine in machines()}
        terms = Terms(hold.next_generation() if hold else 0, read_skips(self._run), book.reached)
        logs.at(attempt=terms.generation)
        fit = Fit(Job(self._recipe, self._state.index.uri, clock, terms), ranks, gpu=self._gpu)
        while not fit.ended.wait(LOOK_S) and not self._overdue(seen):
            self._look(seen, ranks)
        seen.look()
        book.told(seen.values)
        self._shift.starts.landed(seen.places)
        # Where a watchdog has ended a rank, Ray knows no more than that it is dead.
        return (seen.hang() or fit.error) if fit.error is not None else None

    def _look(self, seen: Oversight, ranks: int) -> None:
        shift = self._shift
        seen.look()
        seen.say_who_waits()
        shift.book.told(seen.values)
        shift.check()
        if shift.stop.is_set():
            seen.ask_to_end("the job is told to stop")
            return
        seen.answer_drains(self._run)
        if is_elastic(self._recipe) and ranks < most(self._recipe.resources.num_workers):
            missing = most(self._recipe.resources.num_workers) - ranks
            bundles = [worker_bundle(self._recipe, gpu=self._gpu)] * missing
            seen.look_for_room(ranks, self._fitting, lambda: self._call(bundles))
        shift.starts.landed(seen.places)  # last: it may write, and storage may take its time

    def _overdue(self, seen: Oversight) -> bool:
        """Say whether the job has to end without its workers' last checkpoint."""
        if not self._shift.stop.is_set():
            return False
        if not seen.values:
            return True  # not a step was taken: nothing is lost
        if seen.asked_for_s() < self._shift.grace_s:
            return False
        self._say(f"the workers have not ended within {self._shift.grace_s:.0f} s; their last checkpoint stands")
        return True

    def _judge(self, error: Exception, seen: Oversight, ranks: int) -> None:
        """Do what failures.py decides: return to go on, or raise what the run ends with."""
        began, newest = time.monotonic(), self._newest()
        self._from = newest
        step = int(seen.values["step"]) + 1 if seen.values else newest
        lost, started = self._lost_machine(error, seen), bool(seen.values)
        found = failures.Circumstances(time.time(), step, newest > self._kept, lost, started)
        self._kept = newest
        decision = failures.decide(error, self._history, found, self._recipe.resources.max_failures)
        self._history.append(decision.failure)
        index = self._state.index
        if decision.action == "stop":
            videos = told_videos(self._recipe, index, step) if decision.repeated else ""
            raise failures.final_error(error, decision, videos) from error
        if decision.failure.kind == "no room":
            self._no_rooms[ranks] += 1  # on a cluster that others use, its machines may be taken for long
            until = min(MOST_NO_ROOM_S, NO_ROOM_S * 2 ** (self._no_rooms[ranks] - 1))
            self._no_room[ranks] = time.monotonic() + until
            if time.monotonic() - self._said_no_room < SAY_S:
                return
            self._said_no_room = time.monotonic()
        diverged = failures.root(error)
        if decision.action == "rewind" and isinstance(diverged, DivergedFault):
            extend_skips(self._run, diverged.steps)
            for line in skip_lines(self._recipe, index, diverged.steps):
                self._say(line)
        when = f" in {decision.pause_s:.0f} s" if decision.pause_s else ""
        self._say(f"{decision.reason}; starting again from step {newest}{when}")
        self._shift.stop.wait(max(0.0, decision.pause_s - (time.monotonic() - began)))

    def _lost_machine(self, error: Exception, seen: Oversight) -> Literal["gone", "drained"] | None:
        """Say whether a machine of the trainers is gone or about to be."""
        end = time.monotonic() + (AFTER_DEATH_S if failures.is_foreign(error) else 0.0)
        while True:
            left = (seen.trainers_on or self._there) - {machine.node_id for machine in machines()}
            if left:
                return "drained" if left & (seen.drained | set(draining())) else "gone"
            if time.monotonic() >= end:
                return None
            time.sleep(LOOK_S)
