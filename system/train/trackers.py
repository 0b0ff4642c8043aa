"""Experiment trackers (telemetry.trackers): each in a process of its own, fed by the driver, and never waited for.

The driver puts rows into a bounded queue; a thread writes them into the child's pipe. A service that does not answer
fills what the child keeps, and rows are dropped: the run's metrics.jsonl has all of them. What a
tracker wants to say is told once. The child is tracker_child.py.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import system
from system import storage
from system.data.dataset import run_uri
from system.errors import TubeletError
from system.recipe import Recipe

Say = Callable[[str], None]
# Rows that wait for a tracker; the oldest are dropped.
WAITING = 1000
# How long the end of a job waits for all of its trackers, seconds; one that is told to stop has little time.
LAST_S, STOPPED_S = 20.0, 3.0
# The run's name among those of a tracker's project: it is the same for all jobs of a run.
IDENTITY = "trackers.json"
# What a child has said is read for so long after its end, seconds: a process that it started may keep the pipe open.
READ_S = 1.0


def identity_of(folder: str) -> str:
    """Return what a run is called by its trackers; made when it is first asked for, and kept in the run's folder."""
    uri = storage.join(folder, IDENTITY)
    try:
        return str(json.loads(storage.read(uri))["id"])
    except storage.MissingError:
        made = uuid.uuid4().hex
        storage.write(uri, json.dumps({"id": made}).encode())
        return made


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree's leaves by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def row_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a tracker gets of the trainers' newest values: the numbers."""
    names = [name for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)]
    return {name: values[name] for name in names if name != "told_at"}


class Child:
    """One tracker's process.

    Args:
        name: `wandb` or `mlflow`.
        first: the first message: who the run is.
        say: takes lines for the user.
        command: that starts it.
    """

    def __init__(self, name: str, first: Mapping[str, Any], say: Say, command: Sequence[str] | None = None) -> None:
        self._name, self._say = name, say
        self._waiting: queue.Queue[str | None] = queue.Queue(WAITING)
        self._dropped = 0
        command = command or [sys.executable, "-m", "system.train.tracker_child", name]
        path = os.pathsep.join(filter(None, [str(Path(system.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # a Ctrl-C is the driver's to answer
        )
        self.put(first)
        writer, self._reader = (
            threading.Thread(target=work, name=f"{name} {work.__name__}", daemon=True)
            for work in (self._write, self._read)
        )
        writer.start()
        self._reader.start()

    def put(self, message: Mapping[str, Any]) -> None:
        """Send a message, or drop the oldest that waits."""
        self._offer(json.dumps(message))

    def no_more(self) -> None:
        """End its input behind what waits."""
        self._offer(None)

    def _offer(self, line: str | None) -> None:
        while True:
            try:
                self._waiting.put_nowait(line)
                return
            except queue.Full:
                with suppress(queue.Empty):
                    self._waiting.get_nowait()
                    self._dropped += 1

    def _write(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # it has ended
            while (line := self._waiting.get()) is not None:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._say(f"{self._name}: {line.strip()}")

    def end(self, until: float) -> None:
        """Let it send what waits after `no_more`, until a time of the monotonic clock at most, and end it."""
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):  # the libraries' own processes as well
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._say(f"{self._name}: it has not taken everything, and is not waited for; metrics.jsonl has it all")
        self._reader.join(READ_S)
        if self._dropped:
            self._say(f"{self._name}: {self._dropped} rows were dropped while it did not answer")


class Trackers:
    """The trackers of a job; used as a context.

    Args:
        recipe: of the run.
        say: takes lines for the user.
    """

    def __init__(self, recipe: Recipe, say: Say) -> None:
        self._recipe, self._say = recipe, say
        self._children: list[Child] = []
        self._next = 0
        self._last_s = STOPPED_S  # until it is done: an error, too, is to be told soon

    def __enter__(self) -> Trackers:
        wanted = self._recipe.telemetry.trackers
        if not wanted:
            return self
        try:
            first = self._first()
            self._children = [Child(name, first, self._say) for name in wanted]
        except (TubeletError, OSError) as error:
            self._say(f"no trackers: {error}")
        return self

    def __exit__(self, *_: object) -> None:
        until = time.monotonic() + self._last_s
        for child in self._children:
            child.no_more()  # all of them first: one that hangs may take all of the time
        for child in self._children:
            child.end(until)

    def _first(self) -> dict[str, Any]:
        folder = run_uri(self._recipe)
        local = None if storage.is_s3(folder) else storage.local_path(folder)
        return {
            "id": identity_of(folder),
            "run": self._recipe.run.name,
            # For what is kept here until a service answers.
            "folder": str(local or Path(tempfile.gettempdir()) / f"tubelet-{self._recipe.run.name}"),
            "config": flat(self._recipe.model_dump(mode="json")),
        }

    def saw(self, values: Mapping[str, Any]) -> None:
        """Take the trainers' newest values, and send them on where telemetry.log_every_steps have passed."""
        if self._children and (values["step"] >= self._next or values["step"] < self._next - self._every):
            self._next = values["step"] + self._every  # after a rewind it is behind: hence the second condition
            self.add(values)

    def add(self, values: Mapping[str, Any]) -> None:
        """Send the numbers of a row on, such as those of a probe."""
        row = row_of(values)
        for child in self._children:
            child.put({"row": row})

    @property
    def _every(self) -> int:
        return self._recipe.telemetry.log_every_steps

    def ended(self, status: str) -> None:
        """Say how the job ended: `complete`, `stopped` or `failed`."""
        self._last_s = LAST_S if status == "complete" else STOPPED_S
        for child in self._children:
            child.put({"end": status})
