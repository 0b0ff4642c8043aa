"""Probes of a run's checkpoints while it trains: the driver's part; the actor that does the work is in probe_actor.py.

The driver's thread learns of checkpoints from what the trainers say, and has them probed one at a time. The actor reads
the weights first, since a checkpoint is deleted when newer ones are kept. Nothing here is waited for by the training,
and nothing that goes wrong here ends it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import ray

from system.data.clock import untyped_ray
from system.data.dataset import run_uri
from system.errors import StorageFault, TubeletError, WeightsError
from system.evaluate.labelled_sets import Sides, online_sides
from system.evaluate.probe_actor import Row, end_actor, holds_resources, start_actor
from system.recipe import Recipe
from system.train.checkpoint import complete_steps
from system.train.failures import root
from system.train.probed import Probed, Turns, good, probe_line
from system.train.shift import Hold

Say = Callable[[str], None]
Told = Callable[[list[Row], Row | None], None]

# How often the driver looks after a probe, seconds.
LOOK_S = 1.0
# How long the actor may wait for its place before that is said, seconds.
SAY_S = 120.0


class OnlineProbe:
    """Probes a run's checkpoints; used as a context. Does nothing where the recipe names no videos.

    Args:
        recipe: of the run.
        say: takes lines for the user.
        told: takes all rows of probe.jsonl and the newest of them, where it is new.
        hold: on the run.
    """

    def __init__(self, recipe: Recipe, say: Say, told: Told, hold: Hold | None = None) -> None:
        self._recipe, self._say, self._told, self._hold = recipe, say, told, hold
        self._run = run_uri(recipe)
        self._newest: int | None = None
        self._last: int | None = None
        self._end, self._done = threading.Event(), threading.Event()
        self._way, self._of_actor = threading.Event(), threading.Lock()
        self._sides: Sides | None = None
        self._probed: Probed | None = None
        self._turns = Turns(recipe.probe.every_steps)
        self._actor: Any = None
        self._ready: Any = None
        self._work: Any = None
        self._since, self._held, self._failures = 0.0, 0, 0
        self._thread = threading.Thread(target=self._look_after, name="probe", daemon=True)

    def __enter__(self) -> OnlineProbe:
        if self._recipe.probe.uri is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(2 * LOOK_S)
        self._stop_actor()
        if self._turns.passed_over:
            self._say(f"{self._turns.passed_over} checkpoints were not probed: newer ones came before their turn")

    def saw(self, values: Mapping[str, Any]) -> None:
        """Take the trainers' newest values, which name the newest checkpoint."""
        self._newest = values.get("standing", {}).get("checkpoint", self._newest)

    def make_way(self) -> None:
        """Give back what is held of the cluster: the trainers' machines are looked for."""
        if self._recipe.probe.uri is None or not holds_resources(self._recipe):
            return
        self._newest = None  # until trainers take steps again
        with self._of_actor:  # and no more: the thread may wait for storage
            self._way.set()
            if self._actor is not None:
                end_actor(self._actor)

    def finish(self, stop: threading.Event) -> None:
        """Wait for the probe of the run's last checkpoint, as long as the recipe says, or until the job is to stop."""
        if not self._thread.is_alive():
            return
        with suppress(TubeletError):
            self._last = max(complete_steps(self._run), default=0)
        until = time.monotonic() + self._recipe.probe.wait_s
        if self._last is None or self._done.wait(2 * LOOK_S):
            return
        self._say(f"waiting for the probe of step {self._last}, {self._recipe.probe.wait_s:.0f} s at most")
        while not self._done.wait(LOOK_S / 2) and not stop.is_set() and time.monotonic() < until:
            if not self._thread.is_alive() or self._is_lost():
                return
        if not self._done.is_set():
            self._say(
                f"the probe of step {self._last} is not done and not waited for; `python -m jobs.probe --run"
                f" {self._run} --step {self._last}` does it"
            )

    def _look_after(self) -> None:
        try:
            self._probed = Probed(self._run)
            self._turns.newest = self._turns.committed = self._probed.newest
            self._told(self._probed.rows, None)
            while not self._end.wait(LOOK_S):
                self._look()
        except Exception as error:  # noqa: BLE001  whatever it is, the run goes on
            self._say(f"no more probes in this job: {type(error).__name__}: {error}")

    def _look(self) -> None:
        turns = self._turns
        if self._way.is_set():
            self._stop_actor()
            turns.put_back()
            self._way.clear()
        if self._last is not None:
            turns.last(self._last)
        elif self._newest is None:
            return
        elif turns.saw(self._newest) and self._probed is not None:
            self._probed.back_to(self._newest)
            self._held = 0
        if self._work is not None and _is_done(self._work):
            self._take()
        if turns.waiting is not None and self._actor is None:
            self._start()
        if self._actor is not None and self._here():
            self._go_on()
        if self._last is not None and turns.idle:
            self._done.set()

    def _start(self) -> None:
        """Start the actor; what keeps it from starting is this probe's failure, and the next one tries again."""
        try:
            self._sides = self._sides or online_sides(self._recipe, self._say)
            with self._of_actor:
                if self._end.is_set() or self._way.is_set():
                    return
                self._actor = start_actor(self._recipe, self._sides)
            self._ready, self._since, self._held = self._actor.ready.remote(), time.monotonic(), 0
        except (TubeletError, ray.exceptions.RayError) as error:
            self._turns.begin()
            self._failed(error)

    def _here(self) -> bool:
        """Say whether the actor has its place; tell once that it waits for one."""
        if self._ready is None:
            return True
        if not _is_done(self._ready):
            if time.monotonic() - self._since > SAY_S:
                self._since = float("inf")
                section = self._recipe.probe
                self._say(f"the probe waits for a place: {section.cpus} CPUs and {section.gpus:g} GPUs, or less load")
            return False
        self._ready, ready = None, self._ready
        try:
            untyped_ray.get(ready)
        except ray.exceptions.RayError as error:
            self._turns.begin()
            self._failed(error)
        return self._actor is not None

    def _go_on(self) -> None:
        turns = self._turns
        step = turns.begin()
        if step is not None and self._probed is not None:
            self._work = self._actor.probe.remote(step, self._probed.known(step), good(self._probed.rows))
        elif turns.waiting is not None and turns.waiting > self._held:
            self._held = turns.waiting
            self._actor.hold.remote(turns.waiting)  # if that fails, so does its probe

    def _take(self) -> None:
        work, self._work = self._work, None
        try:
            row: Row = untyped_ray.get(work)
        except ray.exceptions.RayError as error:
            self._failed(error)
            return
        if self._turns.end() and self._keep(row):
            self._say(probe_line(row))

    def _failed(self, error: Exception) -> None:
        """Note that a probe has failed; the first one is said. One that made way has not."""
        if self._way.is_set():
            return
        step, cause = self._turns.running, _cause(error)
        reason = f"{type(cause).__name__}: {cause}"
        with suppress(TubeletError):
            if isinstance(cause, WeightsError) and step not in complete_steps(self._run):
                reason = "its checkpoint was deleted before it was read"
        if not isinstance(error, ray.exceptions.RayTaskError):
            self._stop_actor()
        self._failures += 1
        if self._failures == 1:
            self._say(f"the probe of step {step} failed, the run goes on: {reason.splitlines()[0]}")
        if self._turns.end():
            self._keep({"step": step, "time": time.time(), "error": reason})

    def _keep(self, row: Row) -> bool:
        """Write a row down and tell it; nothing where another job holds the run."""
        if self._probed is None or self._is_lost():
            return False
        try:
            self._probed.add(row)
        except StorageFault as error:
            self._say(f"{error}; the next probe is written with this one")
        self._told(self._probed.rows, row)
        return True

    def _is_lost(self) -> bool:
        return self._hold is not None and self._hold.lost is not None

    def _stop_actor(self) -> None:
        with self._of_actor:
            if self._actor is not None:
                end_actor(self._actor)
            self._actor = self._ready = self._work = None


def _cause(error: Exception) -> BaseException:
    """Return the error of ours that was raised here or in the actor, else what Ray's error comes from."""
    raised = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    return raised if isinstance(raised, TubeletError) else root(error)


def _is_done(reference: Any) -> bool:
    done, _ = untyped_ray.wait([reference], timeout=0)
    return bool(done)
