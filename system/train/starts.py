"""The starts of a run's worker groups: when, from which step, on how many ranks, on what, and why each of them ended.

    starts/00000001.json

One file for each job, named by the generation of its first claim, written by the driver when an attempt begins, when
all ranks have said where they are, and when it ends. A job that is killed leaves its last start without an end.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any

from system import storage
from system.data.hardware import Hardware
from system.data.placing import Place
from system.errors import TubeletError

FOLDER = "starts"
# Starts that a job's file keeps, the newest: a run that starts again each minute for a week has 10,000.
MOST = 500


@dataclass(frozen=True, slots=True)
class Machines:
    """Machines of a start whose ranks have the same hardware.

    Attributes:
        hardware: of a rank.
        ranks: address of each machine -> its ranks.
    """

    hardware: Hardware
    ranks: Mapping[str, int]


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
        ran_on: machines of the ranks that had said where they are; None: of a run that is older than this record.
    """

    began_s: float
    from_step: int
    ranks: int
    ended_s: float | None = None
    reached: int | None = None
    why: str = ""
    ran_on: tuple[Machines, ...] | None = ()


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

    def landed(self, places: Iterable[Place]) -> None:
        """Take where the trainers are; it is written once all of them have said it."""
        last, found = self._starts[-1], machines_of(places)
        if found == last.ran_on:
            return
        self._starts[-1] = replace(last, ran_on=found)
        if sum(sum(each.ranks.values()) for each in found) >= last.ranks:
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


def machines_of(places: Iterable[Place]) -> tuple[Machines, ...]:
    """Return the machines of the trainers among some processes, by what their ranks compute with."""
    found: dict[Hardware, Counter[str]] = {}
    for place in places:
        if place.role == "trainers" and place.hardware is not None:
            found.setdefault(place.hardware, Counter())[place.machine] += 1
    return tuple(Machines(each, dict(sorted(found[each].items()))) for each in sorted(found, key=astuple))


def read_starts(run_uri: str) -> list[JobStarts]:
    """Return the starts of a run's jobs, the oldest first; none of a run that is older than this record."""
    jobs = []
    for item in storage.list_objects(storage.join(run_uri, FOLDER), missing_ok=True):
        told = json.loads(storage.read(item.uri))
        starts = [_start_from(each) for each in told["starts"]]
        if starts:
            jobs.append(JobStarts(tuple(starts), told["machine"]))
    return sorted(jobs, key=lambda job: job.starts[0].began_s)


def _start_from(values: Mapping[str, Any]) -> Start:
    """Read what `asdict` made, of this version or a later one."""
    told = values.get("ran_on")
    found = (Machines(Hardware(**_known(Hardware, each["hardware"])), each["ranks"]) for each in told or ())
    return Start(**{**_known(Start, values), "ran_on": None if told is None else tuple(found)})


def _known(kind: type[Start] | type[Hardware], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a record of this version has."""
    return {each.name: values[each.name] for each in fields(kind) if each.name in values}
