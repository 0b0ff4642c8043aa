"""The processes below this one, as /proc shows them: whose child, which title, how much memory. Linux only.

A process is named by its id and the time of its start, so an id that is used again is never taken for the old one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A process.

    Attributes:
        pid: its id.
        parent: its parent's.
        started: clock ticks since the machine's start.
        title: what it calls itself; empty for a zombie.
    """

    pid: int
    parent: int
    started: int
    title: str


def parse_stat(text: str) -> tuple[int, int]:
    """Return the parent and the start time of a line of /proc/PID/stat; the name in it may hold anything."""
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


def look(pid: int) -> Process | None:
    """Return a process, or None if there is none."""
    try:
        parent, started = parse_stat((PROC / str(pid) / "stat").read_text())
        title = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return Process(pid, parent, started, title)


def everyone() -> list[Process]:
    """Return all processes that this machine shows."""
    found = (look(int(path.name)) for path in PROC.iterdir() if path.name.isdigit())
    return [each for each in found if each is not None]


def below(root: int, processes: Iterable[Process]) -> list[Process]:
    """Return the descendants of a process, itself left out: parents before their children, else by id."""
    children: dict[int, list[Process]] = {}
    for each in sorted(processes, key=lambda each: each.pid):
        children.setdefault(each.parent, []).append(each)
    found: list[Process] = []
    waiting = [root]
    while waiting:
        own = children.get(waiting.pop(0), [])
        found += own
        waiting += [each.pid for each in own]
    return found


def descendants(root: int) -> list[Process]:
    """Return the descendants of a process now."""
    return below(root, everyone())


def kill(process: Process) -> bool:
    """Kill a process without a warning; say whether it was still there."""
    now = look(process.pid)
    if now is None or now.started != process.started or not now.title:
        return False
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
        return True
    return False


def kill_with_descendants(pid: int) -> None:
    """Kill a process and all that descends from it without a warning, as the loss of its machine does."""
    own = descendants(pid)  # before it ends: its children have another parent then
    first = look(pid)
    for each in [*([first] if first else []), *own]:
        kill(each)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that none of them is lost sight of."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_all(within_s: float = 10.0) -> list[Process]:
    """Kill all descendants of this process and wait until they are gone; return those that are not."""
    end = time.monotonic() + within_s
    while True:
        left = [each for each in descendants(os.getpid()) if each.title]
        for each in left:
            kill(each)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


def end_all_in_peace() -> None:
    """Kill all descendants, whoever interrupts meanwhile.

    Ray's own shutdown waits for processes to end politely, and leaves those whose parents have been killed.
    """
    impatient = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in impatient]
    try:
        end_all()
    finally:
        for number, handler in zip(impatient, before, strict=True):
            signal.signal(number, handler)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used; 0 if it has ended."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mb(pid: int) -> tuple[float, float]:
    """Return a process's proportional set size, MiB: its own pages, and those of shared memory. 0 if it has ended.

    Pages that several processes have mapped count in parts. Shared memory is apart since an object store's pages stay
    with whoever has touched them: a machine that just came holds few, one that is older all that its store may hold.
    """
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Pss")}
    return (kb["Pss"] - kb["Pss_Shmem"]) / 1024, kb["Pss_Shmem"] / 1024
