"""One decode child from its parent's side: started, given a job, listened to with a clock, ended.

Hostile bytes may have taken a child over, so nothing that it says is believed: each number is checked against the job,
each wait has an end, and whatever is out of order counts as a crash of the child.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

import system
from system.data.job import START_S, Answer, Job, Limits, checked_flow
from system.data.supplied import LARGEST_PIECE_BYTES
from system.data.wire import receive, send
from system.errors import DecodeError, RecipeError, SystemFault
from system.storage import MissingError

# What a child's interpreter runs.
CHILD = ["-m", "system.data.child"]
# Seconds that a child may take to end when it is killed: the system may hold it in a read of a dead mount.
_KILLED_S = 10.0
# What a child sees of its parent's environment: nothing that grants access to anything.
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
# What a child may say of a video; the parent itself says `deadline`, `crash` and `storage`.
_VERDICTS = frozenset({"open", "decode", "short", "corrupt", "memory"})
# A message's text: the facts of a video of a million key frames are 20 MB.
_TEXT_BYTES = 1 << 26
# What a job's bytes may be asked for in all: a decoder that starts again reads them twice, a bad interleaving more.
_READ_TIMES, _READ_MORE_BYTES = 4, 256 << 20
# What one question costs of that at least, so that there is an end to small ones.
_QUESTION_BYTES = 1 << 16


class _Pipes:
    """A child's standard input and output, as files whose every call ends when the time is up."""

    def __init__(self, target: int, source: int) -> None:
        os.set_blocking(target, False)
        self._target, self._source = target, source
        self.until = 0.0

    def _wait(self, descriptor: int, event: int) -> None:
        poll = select.poll()  # and not select, which knows no descriptor above 1023
        poll.register(descriptor, event)
        left = self.until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError

    def read(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            self._wait(self._source, select.POLLIN)
            part = os.read(self._source, min(count, 1 << 20))
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            self._wait(self._target, select.POLLOUT)
            with suppress(BlockingIOError):
                left = left[os.write(self._target, left) :]

    def flush(self) -> None:
        """Nothing is held back."""


class Process:
    """One living child.

    Args:
        capacity: of the memory shared with it, bytes; two answers' frames.
        limits: what it may use.
    """

    def __init__(self, capacity: int, limits: Limits) -> None:
        self.videos = 0
        self.rss_mb = 0.0
        self._region = capacity // 2
        self._memory_mb = limits.memory_mb
        self._asked_bytes = 0
        self._cpu_s = 0.0
        shared = os.memfd_create("tubelet-frames", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(shared, capacity)
        # Or the child could shorten it, and reading a frame would kill the parent.
        fcntl.fcntl(shared, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(shared, capacity)
        # A file and not a pipe, which would block a child that prints much.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the child
        self._process = subprocess.Popen(
            [sys.executable, *CHILD, *map(str, (shared, capacity, limits.memory_mb, limits.life_cpu_s))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            pass_fds=[shared],
            env=_environment(),
        )
        os.close(shared)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._pipes = _Pipes(self._process.stdin.fileno(), self._process.stdout.fileno())

    def send(self, job: Job, turn: int, deadline_s: float, cpu_s: float) -> None:
        """Give a job and the CPU time that it may use; `receive` says if that went wrong."""
        assert job.shape is None or prod(job.shape) <= self._region
        segments = job.video.segments
        message = {
            "op": job.op,
            "size": job.video.size,
            "segments": [[start, len(data)] for start, data in segments],
            "offset": turn % 2 * self._region,
            "cpu_s": cpu_s,
            **job.values,
        }
        self._asked_bytes, self._cpu_s = 0, cpu_s
        self._pipes.until = time.monotonic() + deadline_s
        with suppress(BrokenPipeError, TimeoutError):
            send(self._pipes, message, b"".join(data for _, data in segments))

    def receive(self, job: Job, turn: int, deadline_s: float) -> Answer:
        """Wait for the answer to a job, and serve what the child asks for meanwhile; that time is not the video's.

        Raises:
            DecodeError: `deadline`, `crash`, `storage`, or what the child says about the video.
            DataError: if storage refuses what it is asked for.
            StorageFault: if storage does not answer.
            RecipeError: if the decoder that the job names is not installed.
        """
        self._pipes.until = time.monotonic() + deadline_s
        while True:
            with self._judged(deadline_s):
                message, data = receive(self._pipes, _TEXT_BYTES, job.answer_bytes)
                need = self._wanted(job, message["need"]) if "need" in message else None
            if need is None:
                break
            bytes_of_it = self._supply(job, *need)
            with self._judged(deadline_s):
                send(self._pipes, {"ok": True}, bytes_of_it)
        if "not_loaded" in message and job.decoder != "auto":
            check_loads(job.decoder, self._memory_mb)
        with self._judged(deadline_s):
            return self._answer(job, turn, message, data)

    @contextmanager
    def _judged(self, deadline_s: float) -> Iterator[None]:
        """Turn what goes wrong with the child into a verdict about its video."""
        try:
            yield
        except TimeoutError as error:
            raise DecodeError("deadline", f"not done after {deadline_s:g} s") from error
        except (BrokenPipeError, EOFError) as error:
            raise self._fate() from error
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise DecodeError("crash", f"its decoder answers out of order ({printable(str(error))[:100]})") from error

    def _wanted(self, job: Job, need: Any) -> tuple[int, int]:
        """Check a question for bytes; it must lie inside of the video, and there must be an end to them."""
        start, stop = need
        inside = type(start) is int and type(stop) is int and 0 <= start < stop <= job.video.size
        if not inside or stop - start > LARGEST_PIECE_BYTES:
            raise ValueError(f"asks for bytes {start!r:.40} to {stop!r:.40} of {job.video.size}")
        self._asked_bytes += max(stop - start, _QUESTION_BYTES)
        if self._asked_bytes > _READ_TIMES * job.video.size + _READ_MORE_BYTES:
            raise ValueError(f"has asked for {self._asked_bytes} bytes of {job.video.size}")
        return start, stop

    def _supply(self, job: Job, start: int, stop: int) -> bytes:
        """Fetch bytes of a job's video; the time that this takes is not the video's.

        Raises:
            DecodeError: `storage`, if the object is gone; the child still waits for its bytes then.
        """
        began = time.monotonic()
        try:
            return job.video.fetch(start, stop)
        except MissingError as error:
            raise DecodeError("storage", str(error)) from error
        finally:
            self._pipes.until += time.monotonic() - began

    def _answer(self, job: Job, turn: int, message: dict[str, Any], data: bytes) -> Answer:
        self.videos += 1
        self.rss_mb = float(message["rss_mb"])
        if not isfinite(self.rss_mb):
            raise ValueError("uses no number of bytes")
        if "error" in message:
            code = message["error"]
            if code not in _VERDICTS:
                raise ValueError(f"says {code!r:.40}")
            raise DecodeError(code, printable(str(message["reason"]))[:1000])
        frames = None
        if job.shape is not None:
            shape = message["shape"]
            if shape != list(job.shape):
                raise ValueError(f"gives frames of {shape!r:.40}, not {list(job.shape)}")
            frames = np.frombuffer(self._memory, np.uint8, prod(job.shape), turn % 2 * self._region).reshape(job.shape)
        return Answer(message, data, frames, checked_flow(job, data))

    def _fate(self) -> DecodeError:
        """Say what ended the child, or that it only hung up."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return DecodeError("crash", "killed its decoder (it closed its pipe)")
        if code == -signal.SIGXCPU:
            return DecodeError("deadline", f"used more than {self._cpu_s:g} s of CPU")
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        fate = f"signal {-code}" if code < 0 else f"exit code {code}"
        return DecodeError("crash", f"killed its decoder ({fate}{f': {printable(said[-1])[:200]}' if said else ''})")

    def kill(self) -> None:
        """End the child, whatever it is doing; frames of its answers stay valid."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILLED_S)
        self._errors.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def printable(text: str) -> str:
    """Return a child's words without what could not be printed or encoded again."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _environment() -> dict[str, str]:
    kept = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ}
    return {**kept, "PYTHONPATH": str(Path(system.__file__).parents[1])}


# What `check_loads` runs: the limit of a child, then what a child would load.
_LOADS = """
import resource, sys
from system.data.decoders import load
from system.errors import RecipeError
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]) << 20,) * 2)
try:
    load(sys.argv[1])
except RecipeError as error:
    sys.exit(str(error))
"""


def check_loads(decoder: str, memory_mb: int) -> None:
    """Try for ourselves whether a decoder can be loaded: a child says that it cannot, and its word may not stop a run.

    Raises:
        RecipeError: if it cannot be loaded.
        SystemFault: if that takes too long to say.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOADS, decoder, str(memory_mb)],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SystemFault(f"the decoder {decoder} did not load within {START_S:g} s") from error
    if done.returncode:
        raise RecipeError((done.stderr.strip().splitlines() or [f"data.decoder={decoder} cannot be loaded"])[-1])
