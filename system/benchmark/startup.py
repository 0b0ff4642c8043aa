"""From the end of `ray.init` to the first step: how long a start takes, and which processes it waits for.

The run is the smallest recipe's, with two workers, DeepSpeed and generated videos, as `jobs.pretrain` starts it. It is
started twice, each time in a process and a cluster of its own; the second start, which finds all files in memory,
counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from system.benchmark.children import REPOSITORY
from system.benchmark.line import Line, Target
from system.benchmark.stages import Asked
from system.benchmark.start_imports import measure_imports
from system.errors import SystemFault

RECIPE = "jobs/recipes/smoke.yaml"
# No start takes so long, seconds.
LIMIT_S = 300.0
# A process by its title in the order of a start, and how it is told.
MARKS = (
    ("ray::Clock", "the run's clock"),
    ("ray::TrainController", "Ray Train's controller"),
    ("ray::RayTrainWorker", "the ranks"),
    ("ray::DatasetManager", "Ray Train's dataset manager"),
    ("ray::SplitCoordinator", "the stream's coordinator"),
    ("ray::MapWorker(MapBatches(_Read))", "the read actor"),
    ("ray::MapWorker(MapBatches(_Decode))", "the decode actor"),
    ("system.data.child", "the decode child"),
)


def measure(asked: Asked) -> Sequence[Line]:
    """Measure starts of a run, and of the two commands that a laptop starts most often."""
    found = [start(asked.scratch, f"start{number}") for number in range(1 if asked.short else 2)]
    for line in told(found[-1]):
        asked.say(line)
    return [
        *measure_imports(asked),
        Line(
            "startup",
            "first step, 2 workers",
            "s",
            found[-1]["first_step_s"],
            targets=(Target("at_most", 15.0),),
            more=False,
            says=f"from the end of ray.init to the end of the first step; where it goes: {_where(found[-1])}",
        ),
        Line(
            "startup",
            "its processes' CPU",
            "s",
            sum(each["cpu_s"] for each in found[-1]["processes"]),
            more=False,
            says=f"of {len(found[-1]['processes'])} processes until then, Ray's own servers and the driver left out",
        ),
    ]


def start(scratch: str, name: str) -> dict[str, Any]:
    """Start a run in a process of its own, until its first step; return what was seen.

    Raises:
        SystemFault: if it does not get so far.
    """
    command = [sys.executable, "-m", "system.benchmark.start_of_run", RECIPE, scratch, name]
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        command, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    result = Path(scratch) / f"{name}.json"
    if done.returncode or not result.exists():
        raise SystemFault(f"the start of a run ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def marks(processes: Sequence[dict[str, Any]]) -> list[tuple[str, float, float, float]]:
    """Return each kind of process in `MARKS`: name, when the first was born, when the last was there, CPU seconds.

    Args:
        processes: with `title`, `born_s` and `ready_s` after the end of ray.init, and `cpu_s`.
    """
    found = []
    for start_of_title, name in MARKS:
        own = [each for each in processes if start_of_title in each["title"]]
        if own:
            born, ready = min(each["born_s"] for each in own), max(each["ready_s"] for each in own)
            found.append((name, born, ready, sum(each["cpu_s"] for each in own)))
    return found


def _where(found: dict[str, Any]) -> str:
    parts = [f"{name} {ready:.1f}" for name, _, ready, _ in marks(found["processes"])]
    return ", ".join([*parts, f"first step {found['first_step_s']:.1f}"]) + " (seconds at which each was there)"


def told(found: dict[str, Any]) -> list[str]:
    """Return a start as lines for a person."""
    lines = [f"  {'':28s} {'born':>6s} {'there':>6s} {'CPU':>6s}   seconds after the end of ray.init"]
    lines += [
        f"  {name:28s} {born:6.1f} {ready:6.1f} {cpu:6.1f}" for name, born, ready, cpu in marks(found["processes"])
    ]
    return [*lines, f"  {'the first step':28s} {'':6s} {found['first_step_s']:6.1f}"]
