"""How soon small things are there: the package, a recipe that is shown, and what each kind of process imports."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

from system.benchmark.children import python
from system.benchmark.line import Line, Target
from system.benchmark.stages import Asked
from system.benchmark.timing import Measured

RECIPE = "jobs/recipes/videomae-vitb-k400.yaml"
SHOW = ("-m", "jobs.pretrain", "--recipe", RECIPE, "--show")
# What the kinds of processes import, and what that is without our code.
PROCESSES = {
    "decode child": ("system.data.child", "numpy, av"),
    "read, decode": ("system.data.stages", "numpy, pyarrow.parquet, pydantic, yaml"),
    "clock": ("system.data.clock", "ray"),
    "coordinator": ("system.data.pipeline", "ray.data, numpy, pyarrow.parquet, pydantic, yaml"),
}


def measure_imports(asked: Asked) -> list[Line]:
    """Measure them in processes of their own, in turn; files are in the page cache."""
    kinds: dict[str, Callable[[], float]] = {
        "import": partial(_imported, "system", "perf_counter"),
        "show": partial(_whole, *SHOW),
        "show, packages alone": partial(_whole, "-c", "import argparse, pydantic, yaml"),
    }
    for name, (module, packages) in PROCESSES.items():
        kinds[name] = partial(_imported, module, "process_time")
        kinds[f"{name}, packages alone"] = partial(_imported, packages, "process_time")
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(asked.repeats):
        for name in kinds if number % 2 == 0 else reversed(kinds):
            found[name].append(kinds[name]())
    return lines(found)


def _imported(names: str, clock: str) -> float:
    """Return the seconds that an import takes in a fresh process, by a clock of the module `time`."""
    return float(python("-c", f"import time; t = time.{clock}(); import {names}; print(time.{clock}() - t)"))


def _whole(*arguments: str) -> float:
    began = time.perf_counter()
    python(*arguments)
    return time.perf_counter() - began


def lines(found: dict[str, list[float]]) -> list[Line]:
    """Return the lines of seconds by kind."""

    def line(kind: str, name: str, says: str, at_most: float | None = None) -> Line:
        mine, alone = Measured(tuple(found[kind])), found.get(f"{kind}, packages alone")
        return Line(
            "startup",
            name,
            "s",
            mine.median,
            limit=median(alone) if alone else None,
            targets=() if at_most is None else (Target("at_most", at_most),),
            more=False,
            repeats=len(found[kind]),
            spread=mine.spread,
            says=says,
        )

    return [
        line("import", "import system", "in a fresh process", 0.1),
        line("show", "pretrain --show", f"{RECIPE}, the whole process; the limit imports pydantic and yaml alone", 1),
        *(
            line(name, f"imports: {name}", f"CPU time of {module} in a fresh process; the limit imports {packages}")
            for name, (module, packages) in PROCESSES.items()
        ),
    ]
