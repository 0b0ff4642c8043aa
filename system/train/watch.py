"""The driver's watch over a run that trains: every few seconds gauges to a sink, and a record for people to the book.

What they say is made in readings.py, of the trainers' last word and of the book of the job's time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from system.data.dataset import run_uri
from system.data.queues import StageNow
from system.errors import TubeletError
from system.monitoring.export import Sink
from system.recipe import Recipe
from system.train.checkpoint import complete_steps
from system.train.elastic import told_workers
from system.train.goodput import Book
from system.train.launch import RunState
from system.train.live import Live, Pace
from system.train.readings import Facts, Moment, live_of, readings

# How often numbers are given to Ray, which sends them off every ten seconds and forgets gauges after twenty.
EVERY_S = 5.0


class Watch:
    """The driver's part: a thread that gives the gauges to a sink and the record to the book, as long as a job trains.

    Args:
        recipe: of the run.
        state: from `open_run`.
        book: of the job's time.
        sink: takes them.
        say: takes a line for the user, if the sink breaks.
        show: takes the record every few seconds.
    """

    def __init__(
        self,
        recipe: Recipe,
        state: RunState,
        book: Book,
        sink: Sink,
        say: Callable[[str], None],
        show: Callable[[Live], object] = lambda live: None,
    ) -> None:
        self._facts = Facts(
            state.schedule.total,
            state.index.num_videos,
            recipe.checkpoint.every_steps,
            recipe.data.max_bad_ratio,
            recipe.telemetry.price_per_hour,
            recipe.run.name,
            state.schedule.stop,
            told_workers(recipe),
        )
        self._run, self._book, self._say, self._show = run_uri(recipe), book, say, show
        self._sink: Sink | None = sink
        self._values: Mapping[str, Any] = {}
        self._attempt = 0  # that told them
        self._stages: Sequence[StageNow] = ()
        self._pace = Pace()
        self._kept, self._kept_at, self._kept_here = state.progress.step, time.time(), False
        self._told_at = time.time()
        self._probes: Sequence[Mapping[str, Any]] = ()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(TubeletError):  # the last checkpoint is told with no step
            self._keep(max(complete_steps(self._run), default=self._kept))
        self._end.set()
        self._thread.join()

    def saw(self, values: Mapping[str, Any]) -> None:
        """Take the trainers' newest values."""
        self._values, self._told_at = values, values.get("told_at", time.time())
        self._attempt = self._book.attempts
        self._keep(values.get("standing", {}).get("checkpoint", self._kept))
        self._pace.saw(values["step"], values["step_s"])

    def _keep(self, kept: int) -> None:
        if kept != self._kept:
            self._kept, self._kept_at, self._kept_here = kept, time.time(), True

    def saw_stages(self, stages: Sequence[StageNow]) -> None:
        """Take how full the stream's stages are."""
        self._stages = stages

    def live(self) -> Live:
        """Return the record of now."""
        gone = self._attempt != self._book.attempts  # of the last word of those workers the step alone still holds
        values = {name: value for name, value in self._values.items() if name == "step" or not gone}
        live = live_of(self._facts, values, self._moment(), self._kept, self._pace.mean_s)
        return replace(live, stages=tuple(self._stages), kept_here=self._kept_here)

    def probed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take the rows of probe.jsonl."""
        self._probes = tuple(rows)

    def _work(self) -> None:
        while True:
            ended = self._end.wait(EVERY_S)
            live = self.live()
            self._book.note(live)
            self._show(live)
            try:
                self.export()
            except Exception as error:  # noqa: BLE001  numbers that nobody gets are no reason to end a run
                self._sink = None
                self._say(f"no more metrics are exported: {error}")
            if ended:
                return

    def _moment(self) -> Moment:
        now, book = time.time(), self._book
        since = now - self._told_at, now - self._kept_at
        return Moment(now, *since, book.attempts, book.account, book.whole, self._probes)

    def export(self) -> None:
        """Give the gauges of now to the sink, unless it is broken."""
        if self._sink is None:
            return
        for reading in readings(self._facts, self._values, self._moment()):
            self._sink.set(reading.name, reading.value, **dict([reading.label] if reading.label else []))
