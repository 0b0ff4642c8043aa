"""Decode children from the parent's side: started, given work, watched, replaced.

A video that hangs, crashes or eats memory costs its child and a deadline, never the actor. One request is under way
while the caller works on the result before it, so decoding and masking overlap on two cores.
"""

from __future__ import annotations

import mmap
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

import system
from system.data.decode import ClipRequest
from system.data.scale import Frames
from system.data.wire import receive, send
from system.errors import DecodeError, StorageFault, UserError

# A time-out is tried once more, alone in a fresh child, with this many times the deadline, before it counts.
SECOND_CHANCE = 5
# What a child's interpreter runs.
CHILD = ["-m", "system.data.child"]
# Seconds that a child may take to start.
START_S = 60.0
# What a child sees of its parent's environment: nothing that grants access to anything.
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use, and when it is replaced."""

    deadline_s: float = 20.0
    memory_mb: int = 8192
    rss_mb: int = 1536
    videos: int = 5000


@dataclass(frozen=True, slots=True)
class Video:
    """The bytes of one video, or the parts of it that are at hand.

    Attributes:
        size: of the whole video, bytes.
        segments: (start, bytes) that are at hand.
        fetch: returns the bytes [start, stop) of the rest.
    """

    size: int
    segments: tuple[tuple[int, bytes], ...]
    fetch: Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Job:
    """One request to a child: `op` is decode, probe or transcode; `values` are its arguments as plain values."""

    video: Video
    op: str
    values: dict[str, Any]


def decode_job(video: Video, request: ClipRequest) -> Job:
    """Make the job of decoding one clip."""
    values = {
        "frames": list(request.frames),
        "crops": [[crop.pair, crop.offset] for crop in request.crops],
        "size": request.size,
        "decoder": request.decoder,
        "seek": [request.seek.frame, request.seek.timestamp, request.seek.target] if request.seek else None,
    }
    return Job(video, "decode", {"request": values})


@dataclass(slots=True)
class Answer:
    """What a child said about one job; `frames` is a view that is valid until the job after the next is sent."""

    values: dict[str, Any]
    data: bytes
    frames: Frames | None


class _Process:
    """One living child."""

    def __init__(self, capacity: int, limits: Limits) -> None:
        self.videos = 0
        self.rss_mb = 0.0
        self._region = capacity // 2
        shared = os.memfd_create("tubelet-frames")
        os.ftruncate(shared, capacity)
        self._memory = mmap.mmap(shared, capacity)
        # A file and not a pipe, which would block a child that prints much.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the child
        environment = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ}
        environment["PYTHONPATH"] = str(Path(system.__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, *CHILD, str(shared), str(capacity), str(limits.memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=[shared],
            env=environment,
        )
        os.close(shared)

    def send(self, job: Job, turn: int) -> None:
        segments = job.video.segments
        message = {
            "op": job.op,
            "size": job.video.size,
            "segments": [[start, len(data)] for start, data in segments],
            "offset": turn % 2 * self._region,
            **job.values,
        }
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died; `receive` will say so
            send(self._process.stdin, message, b"".join(data for _, data in segments))

    def receive(self, job: Job, turn: int, deadline_s: float) -> Answer:
        """Wait for the answer to a job, and serve what the child asks for meanwhile.

        Raises:
            DecodeError: `deadline`, `crash`, or what the child says about the video.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        until = time.monotonic() + deadline_s
        while True:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise DecodeError("deadline", f"not done after {deadline_s:g} s")
            try:
                message, data = receive(self._process.stdout)
            except (EOFError, ValueError, UnicodeDecodeError) as error:
                raise DecodeError("crash", f"killed its decoder ({self._fate()})") from error
            if "need" not in message:
                break
            self._supply(job, *message["need"])
        self.videos += 1
        self.rss_mb = float(message["rss_mb"])
        if "error" in message:
            raise DecodeError(str(message["error"]), str(message["reason"]))
        frames = None
        if "shape" in message:
            shape = tuple(int(length) for length in message["shape"])
            frames = np.frombuffer(self._memory, np.uint8, prod(shape), turn % 2 * self._region).reshape(shape)
        return Answer(message, data, frames)

    def _supply(self, job: Job, start: int, stop: int) -> None:
        assert self._process.stdin is not None
        try:
            answer, data = {"ok": ""}, job.video.fetch(int(start), int(stop))
        except (StorageFault, UserError) as error:
            answer, data = {"error": str(error)}, b""
        with suppress(BrokenPipeError):
            send(self._process.stdin, answer, data)

    def _fate(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        fate = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{fate}: {said[-1][:200]}" if said else fate

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class Sandbox:
    """Runs jobs in a child, one after the other, and replaces the child when it must be.

    Args:
        frame_bytes: of the largest result of one job.
        limits: what a child may use.
    """

    def __init__(self, frame_bytes: int, limits: Limits) -> None:
        page = mmap.PAGESIZE
        self._capacity = 2 * max(1, -(-frame_bytes // page)) * page
        self._limits = limits
        self._child: _Process | None = None

    def run(self, jobs: Sequence[Job]) -> Iterator[Answer | DecodeError]:
        """Yield one outcome per job, in order. The next job is sent before an outcome is yielded."""
        for turn, job in enumerate(jobs):
            if turn == 0:
                self._send(job, turn)
            outcome = self._outcome(job, turn)
            if turn + 1 < len(jobs):
                self._send(jobs[turn + 1], turn + 1)
            yield outcome

    def one(self, job: Job) -> Answer | DecodeError:
        """Run one job."""
        return next(self.run([job]))

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _send(self, job: Job, turn: int) -> None:
        child = self._child
        if child is not None and (child.videos >= self._limits.videos or child.rss_mb > self._limits.rss_mb):
            # Frames of the last answer stay valid: a view keeps the old child's memory alive.
            self.close()
        if self._child is None:
            self._child = _Process(self._capacity, self._limits)
        self._child.send(job, turn)

    def _outcome(self, job: Job, turn: int) -> Answer | DecodeError:
        """Wait for a job's outcome; a child that is late or dead is replaced, and what was late is tried again."""
        for attempt in range(2):
            child = self._child
            assert child is not None
            # A child that has done nothing yet may still be starting.
            deadline = self._limits.deadline_s * SECOND_CHANCE**attempt + (0 if child.videos else START_S)
            try:
                return child.receive(job, turn, deadline)
            except DecodeError as error:
                failure = error
            if failure.code not in ("deadline", "crash"):
                return failure
            self.close()
            if failure.code == "crash" or attempt:
                return failure
            self._send(job, turn)
        return failure
