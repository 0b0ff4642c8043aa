"""A rank's watchdog: which phase it is in, told to others, and an end to a phase that does not end. No Ray.

A rank that waits for ever looks like one that works. So the loop says what it begins, and a thread beside it looks at
the clock: it tells the phase every few seconds, warns when one lasts longer than usual, and after a deadline it keeps
all threads' stacks, says so, and ends the process. A dead worker is what everybody else notices.
"""

from __future__ import annotations

import faulthandler
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NoReturn

from system import storage
from system.data.reports import PhaseReport

# Exit code of a process that its watchdog has ended.
HUNG = 86
# The step that a phase's detail names.
_STEP = re.compile(r"\bstep (\d+)")
# Steps whose median says what is usual.
_USUAL = 64
# Where a run's folder keeps the stacks of what hung.
FOLDER = "hangs"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a phase may last, seconds.

    Attributes:
        deadline_s: of a phase.
        start_s: of a phase until the first step is done: weights are read, kernels compiled, actors placed.
        warning_s: a phase that lasts longer is told as slow, if that is also ...
        warning_steps: ... this many times the median step; before the first step is done, a sixth of `start_s`.
        look_s: from one look at the phase to the next.
        tell_s: from one report to the next.
        delivery_s: the process lives on for at most this long to tell of a hang and to keep its stacks.
        flush_s: ... and then for this long, since a message that is sent has not arrived yet.
        frozen_s: beyond the deadlines; where not even the watchdog's thread runs, the process ends then.
    """

    deadline_s: float = 900.0
    start_s: float = 1800.0
    warning_s: float = 60.0
    warning_steps: float = 10.0
    look_s: float = 1.0
    tell_s: float = 5.0
    delivery_s: float = 10.0
    flush_s: float = 1.0
    frozen_s: float = 60.0


def patience_for(worker_timeout_s: float) -> Patience:
    """Return the patience with ranks that may wait for each other so long."""
    return Patience(deadline_s=worker_timeout_s, start_s=max(1800.0, 2 * worker_timeout_s))


def _end(code: int) -> NoReturn:
    os._exit(code)  # and not sys.exit: the thread that hangs would never hear of it


@dataclass(frozen=True, slots=True)
class Edges:
    """What a watchdog reaches the rest of the world by.

    Attributes:
        tell: (report) sends it off and does not wait for an answer.
        keep: (name, stacks) stores the stacks of a hang.
        end: (exit code) ends the process at once.
    """

    tell: Callable[[PhaseReport], Any]
    keep: Callable[[str, bytes], Any]
    end: Callable[[int], Any] = _end


def keep_stacks(run_uri: str, name: str, stacks: bytes) -> None:
    """Store the stacks of a hang in a run's folder."""
    storage.write(storage.join(run_uri, FOLDER, name), stacks)


def stacks_of_threads() -> bytes:
    """Return the stacks of this process's threads, the newest call first."""
    with tempfile.TemporaryFile() as file:  # faulthandler writes to a descriptor, whatever the threads hold
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


@dataclass(frozen=True, slots=True)
class _Now:
    """What the rank is in, since when by the monotonic clock."""

    since: float
    phase: str
    what: str
    step: int


class Watchdog:
    """Watches one rank while the context is open.

    Args:
        rank: that it watches.
        patience: how long a phase may last.
        edges: to the clock, the storage and the process.
    """

    def __init__(self, rank: int, patience: Patience, edges: Edges) -> None:
        self._rank, self._patience, self._edges = rank, patience, edges
        self._now = _Now(time.monotonic(), "start", "", -1)
        self._step_began: float | None = None
        self._steps: deque[float] = deque(maxlen=_USUAL)
        self._told_at = 0.0
        self._warned: _Now | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watchdog of rank {rank}", daemon=True)

    def at(self, phase: str, what: str = "") -> None:
        """Say what the rank begins now.

        Args:
            phase: that begins; reports.py lists them.
            what: it is about: `data`: the block's name, `collective`: what is exchanged. A step that it names, as in
                "the sums of step 12", is the rank's step from now on.
        """
        now, before = time.monotonic(), self._now
        named = _STEP.search(what)
        step = int(named[1]) if named else before.step
        if step != before.step:
            if self._step_began is not None:
                self._steps.append(now - self._step_began)
            self._step_began = now
        self._now = _Now(now, phase, what, step)

    def __enter__(self) -> Watchdog:
        self._tell(self._now, "well")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(self._patience.delivery_s)
        faulthandler.cancel_dump_traceback_later()
        self.at("ended", "with an error" if error is not None else "")
        self._tell(self._now, "well")

    def _limits(self, now: _Now) -> tuple[float, float]:
        """Return after how many seconds a phase is slow, and after how many it hangs."""
        patience, steps = self._patience, list(self._steps)
        if not steps:
            return max(patience.warning_s, patience.start_s / 6), patience.start_s
        return max(patience.warning_s, patience.warning_steps * statistics.median(steps)), patience.deadline_s

    def _watch(self) -> None:
        while not self._ended.wait(self._patience.look_s):
            now = self._now
            slow_s, hang_s = self._limits(now)
            # A thread of the interpreter cannot look while native code holds its lock; one of faulthandler's can.
            faulthandler.dump_traceback_later(
                hang_s + self._patience.frozen_s, exit=True, file=sys.__stderr__ or sys.stderr
            )
            lasted = time.monotonic() - now.since
            if lasted > hang_s:
                self._hang(now, hang_s)
                return
            if lasted > slow_s and self._warned is not now:
                self._warned = now
                self._tell(now, "slow")
            elif time.monotonic() - self._told_at >= self._patience.tell_s:
                self._tell(now, "slow" if lasted > slow_s else "well")

    def _tell(self, now: _Now, level: Literal["well", "slow", "hang"], stacks: str = "") -> None:
        self._told_at = time.monotonic()
        since_s = self._told_at - now.since
        report = PhaseReport("rank", str(self._rank), now.phase, now.what, now.step, since_s, level, stacks)
        with suppress(Exception):  # what is lost is told again; a watchdog that dies of it watches nothing
            self._edges.tell(report)

    def _hang(self, now: _Now, hang_s: float) -> None:
        """Keep the stacks, tell, and end the process: whatever hangs may hang these as well, so they have a time."""
        stacks = stacks_of_threads()
        name = f"step_{max(now.step, 0)}_rank_{self._rank}.txt"
        where = f"{now.phase} {now.what}".rstrip()
        head = f"rank {self._rank}, step {now.step}: more than {hang_s:g} s in {where}\n\n"

        def deliver() -> None:
            self._tell(now, "hang", f"{FOLDER}/{name}")  # first: storage may be what hangs
            self._edges.keep(name, head.encode() + stacks)

        delivery = threading.Thread(target=deliver, name="a hang's delivery", daemon=True)
        delivery.start()
        delivery.join(self._patience.delivery_s)
        time.sleep(self._patience.flush_s)
        self._edges.end(HUNG)
