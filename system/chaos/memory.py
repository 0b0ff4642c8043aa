"""What a run's processes hold, by what they are: is memory flat, or does something grow?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from statistics import median

from system.chaos.processes import Process, below, everyone, memory_mb

# Seconds between two looks.
EVERY_S = 10.0
# Looks of which a quarter is worth a median; in a shorter run the first is all start-up.
FEWEST = 24
ROLES = ("ray", "trainers", "actors", "coordinator", "driver", "other", "shared")

_TRAINER = "ray::RayTrainWorker"
_ACTOR = "ray::MapWorker"
_COORDINATOR = "ray::SplitCoordinator"
_RAY = ("raylet", "gcs_server")


def role_of(process: Process, parents: Mapping[int, Process], driver: int | None) -> str:
    """Say what a process is for; a child is for what its parent is for, where that is known.

    Args:
        process: which.
        parents: every process by its id.
        driver: id of the job's process.
    """
    at: Process | None = process
    while at is not None:
        title = at.title
        if at.pid == driver:
            return "driver"
        for start, role in ((_TRAINER, "trainers"), (_ACTOR, "actors"), (_COORDINATOR, "coordinator")):
            if title.startswith(start):
                return role
        if title.startswith("ray::"):
            return "other"
        if at is process and title.split(" ")[0].rsplit("/", 1)[-1] in _RAY:
            return "ray"
        at = parents.get(at.parent)
    return "other"


def is_trainer(process: Process) -> bool:
    """Say whether this is a rank's process."""
    return process.title.startswith(_TRAINER)


def is_actor(process: Process) -> bool:
    """Say whether this is a process that reads, decodes or masks."""
    return process.title.startswith(_ACTOR)


def look_once(driver: int | None, left_out: Sequence[int] = ()) -> dict[str, float]:
    """Return the PSS of this process's descendants by role, MiB; shared memory is a role of its own.

    Args:
        driver: id of the job's process, if it lives.
        left_out: processes that are no part of the run.
    """
    processes = everyone()
    by_pid = {each.pid: each for each in processes}
    out = dict.fromkeys(ROLES, 0.0)
    for each in below(os.getpid(), processes):
        if each.title and each.pid not in left_out:
            own, shared = memory_mb(each.pid)
            out[role_of(each, by_pid, driver)] += own
            out["shared"] += shared
    return out


def quarters(samples: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]] | None:
    """Return each role's median over the first and over the last quarter of the looks, MiB; None of too few looks.

    A look at which a role had no process says nothing about it.
    """
    if len(samples) < FEWEST:
        return None
    rows = [{**sample, "all": sum(sample.values())} for sample in samples]
    found = {}
    for role in rows[0]:
        values = [row[role] for row in rows if row[role] > 0]
        if len(values) >= FEWEST:
            size = len(values) // 4
            found[role] = (median(values[:size]), median(values[-size:]))
    return found


def lines(samples: Sequence[Mapping[str, float]]) -> list[str]:
    """Return what a user is told about memory."""
    found = quarters(samples)
    if found is None:
        return [f"memory: {len(samples)} looks are too few to compare the run's beginning and end"]
    told = ["memory while nothing recovers (PSS, MiB, median of the first quarter of the looks -> of the last one):"]
    for role, (first, last) in found.items():
        told.append(f"  {role:11s} {first:7.0f} -> {last:7.0f}  {(last - first) / max(first, 1e-9):+.0%}")
    return told
