"""What is written down while a run trains: metrics.jsonl and TensorBoard, by rank 0, into the run's folder.

Object storage cannot append, so the file lives on local disk and is put whole when it is flushed: at every checkpoint
and every half minute. What a resumed run repeats is cut off first, so a step appears once.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from system import storage
from system.errors import LeaseError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FLUSH_S = 30.0
# Longest wait for a flush, seconds: storage gives up before that.
FLUSH_LIMIT_S = 600.0


def resident_mb() -> float:
    """Return this process's resident memory, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Metrics:
    """The run's metrics.

    Args:
        run_uri: the run's folder.
        from_step: the first step of this start; what an earlier one wrote from here on is dropped.
        tensorboard: whether to write TensorBoard's files too.
        fenced: raises LeaseError if another job has taken the run over: nothing is written then.
    """

    def __init__(
        self, run_uri: str, from_step: int, *, tensorboard: bool, fenced: Callable[[], None] = lambda: None
    ) -> None:
        self._fenced = fenced
        self._uri = storage.join(run_uri, "metrics.jsonl")
        self._board_uri = storage.join(run_uri, "tensorboard")
        self._lines = _kept_lines(self._uri, from_step)
        self._flushed = time.monotonic()
        # One thread writes, behind the training: so an older text never replaces a newer one.
        self._writer, self._lock = ThreadPoolExecutor(1, "metrics"), threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="tubelet-")
        self._board = _board(self._folder.name, from_step) if tensorboard else None

    def write(self, values: dict[str, Any]) -> None:
        """Add one step's values; `step` is among them."""
        # JSON knows no NaN.
        wild = {key: None for key, value in values.items() if isinstance(value, float) and not isfinite(value)}
        with self._lock:
            self._lines.append(json.dumps({**values, **wild}))
        if self._board is not None:
            for key, value in values.items():
                if isinstance(value, int | float) and key not in ("step", "time"):
                    self._board.add_scalar(key, value, values["step"])
        if time.monotonic() - self._flushed > FLUSH_S:
            self._flushed = time.monotonic()
            self._writer.submit(self._put)  # what fails is written again; who waits for it is told, at a checkpoint

    def flush(self) -> None:
        """Put everything into the run's folder, and wait until it is there."""
        self._flushed = time.monotonic()
        self._writer.submit(self._put).result(FLUSH_LIMIT_S)

    def _put(self) -> None:
        with self._lock:
            text = "\n".join(self._lines) + "\n"
        self._fenced()
        storage.write(self._uri, text.encode())
        if self._board is not None:
            self._board.flush()
            for path in Path(self._folder.name).iterdir():
                storage.write(storage.join(self._board_uri, path.name), path.read_bytes())

    def close(self) -> None:
        """Put everything into the run's folder, for the last time."""
        if self._board is not None:
            self._board.close()
        try:
            with suppress(LeaseError):  # then the file is another job's
                self.flush()
        finally:
            # A flush that is not done by its deadline is not waited for again here; at the process's end it is.
            self._writer.shutdown(wait=False)
            self._folder.cleanup()


def _board(folder: str, from_step: int) -> SummaryWriter:
    """Make what writes TensorBoard's files; imported by the one rank that does."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

    return SummaryWriter(folder, purge_step=from_step or None)


def _kept_lines(uri: str, from_step: int) -> list[str]:
    """Return the lines of an earlier start that a resumed run does not repeat."""
    try:
        lines = storage.read(uri).decode().splitlines()
    except storage.MissingError:
        return []
    return [line for line in lines if line and json.loads(line)["step"] < from_step]


def read_metrics(run_uri: str) -> list[dict[str, Any]]:
    """Return a run's metrics, one dict per logged step."""
    lines = storage.read(storage.join(run_uri, "metrics.jsonl")).decode().splitlines()
    return [json.loads(line) for line in lines if line]
