"""The starts of a run's worker groups: when, from which step, on how many ranks, and why each of them ended.

    starts/00000001.json

One file for each job, named by the generation of its first claim, written by the driver when an attempt begins and when
it ends. A job that is killed leaves its last start without an end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from system import storage
from system.errors import TubeletError

FOLDER = "starts"
# Starts that a job's file keeps, the newest: a run that starts again each minute for a week has 10,000.
MOST = 500


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a worker group.

    Attributes:
        began_s: when the workers were asked for, seconds since 1970 by the driver's clock.
        from_step: steps that the newest checkpoint held then.
        ranks: workers.
        ended_s: when it ended, or failed and that was noticed; None: it goes on, or its job was killed.
        reached: steps that were done at its end; None: not one was told.
        why: it ended; "" at the run's stop.
    """

    began_s: float
    from_step: int
    ranks: int
    ended_s: float | None = None
    reached: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class JobStarts:
    """The starts of one job, and the machine of its driver as plain values; {} if that is not known."""

    starts: tuple[Start, ...]
    machine: Mapping[str, Any]


class Starts:
    """Keeps the starts of a job and writes them into the run's folder.

    Args:
        run_uri: the run's folder; "" keeps them nowhere.
        generation: of the job's first claim; the file's name.
        machine: of the driver, as plain values.
    """

    def __init__(self, run_uri: str = "", generation: int = 0, machine: Mapping[str, Any] | None = None) -> None:
        self._uri = storage.join(run_uri, FOLDER, f"{generation:08d}.json") if run_uri else ""
        self._starts: list[Start] = []
        self._machine = dict(machine or {})

    def begin(self, from_step: int, ranks: int) -> None:
        """Say that a worker group is started."""
        self._starts.append(Start(time.time(), from_step, ranks))
        self._write()

    def end(self, why: str, values: Mapping[str, Any]) -> None:
        """Say that it has ended, and with which of the trainers' newest values."""
        reached = int(values["step"]) + 1 if values else None
        self._starts[-1] = replace(self._starts[-1], ended_s=time.time(), reached=reached, why=why)
        self._write()

    def _write(self) -> None:
        if not self._uri:
            return
        told = {"machine": self._machine, "starts": [asdict(each) for each in self._starts[-MOST:]]}
        with suppress(TubeletError):  # a record for people is no reason to end a run
            storage.write(self._uri, json.dumps(told, indent=1).encode())


def read_starts(run_uri: str) -> list[JobStarts]:
    """Return the starts of a run's jobs, the oldest first; none of a run that is older than this record."""
    known = {each.name for each in fields(Start)}
    jobs = []
    for item in storage.list_objects(storage.join(run_uri, FOLDER), missing_ok=True):
        told = json.loads(storage.read(item.uri))
        starts = [Start(**{name: value for name, value in each.items() if name in known}) for each in told["starts"]]
        if starts:
            jobs.append(JobStarts(tuple(starts), told["machine"]))
    return sorted(jobs, key=lambda job: job.starts[0].began_s)
