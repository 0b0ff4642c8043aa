"""Which videos a step has, and where they lie, of ten million: time, memory, and how soon there are the first ones."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Sequence
from pathlib import Path

from system.benchmark.children import python
from system.benchmark.large_index import write_index
from system.benchmark.line import Line, Target
from system.benchmark.planning import BLOCK_VIDEOS, PEERS, STEP_VIDEOS
from system.benchmark.stages import Asked
from system.benchmark.timing import Measured

VIDEOS, SHORT_VIDEOS = 10_000_000, 10_000
STEPS, SHORT_STEPS = 128, 3
Found = dict[str, list[dict[str, float]]]


def measure(asked: Asked) -> Sequence[Line]:
    """Measure plan and index, in processes that do nothing else."""
    num_videos, steps = (SHORT_VIDEOS, SHORT_STEPS) if asked.short else (VIDEOS, STEPS)
    path = Path(asked.scratch) / "plan" / "index.parquet"
    path.parent.mkdir()
    began = time.perf_counter()
    write_index(path, num_videos)
    size_mb = path.stat().st_size / 1e6
    asked.say(f"an index of {num_videos} videos, {size_mb:.0f} MB, in {time.perf_counter() - began:.0f} s")
    missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
    if missing:
        asked.say(f"{', '.join(missing)} not installed: nothing to compare the plan with")
    kinds = ["ours"] if missing else ["ours", "conventional"]
    found: Found = {kind: [] for kind in kinds}
    for number in range(asked.repeats):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            found[kind].append(_watched(kind, path, num_videos // STEP_VIDEOS // 2, steps))
    return lines(found, num_videos, size_mb)


def _watched(kind: str, path: Path, middle: int, steps: int) -> dict[str, float]:
    told = python("-m", "system.benchmark.planning", kind, str(path), str(middle), str(steps))
    values: dict[str, float] = json.loads(told)
    return values


def lines(found: Found, num_videos: int, size_mb: float) -> list[Line]:
    """Return the lines of what processes found.

    Args:
        found: `planning.watched` of `ours`, and of `conventional` where there is one, by repeats.
        num_videos: of the index.
        size_mb: of the index.
    """
    of = f"of {num_videos} videos"
    table = "pyarrow.parquet.read_table of three columns, torch.randperm"

    def line(name: str, unit: str, key: str, says: str, at_most: float | None = None, scale: float = 1) -> Line:
        values = {kind: [each[key] * scale for each in each_of if key in each] for kind, each_of in found.items()}
        mine, other = Measured(tuple(values["ours"])), values.get("conventional")
        return Line(
            "plan",
            name,
            unit,
            mine.median,
            Measured(tuple(other)).median if other else None,
            targets=() if at_most is None else (Target("at_most", at_most),),
            more=False,
            repeats=len(values["ours"]),
            spread=mine.spread,
            says=says,
        )

    return [
        line("rows of a step", "ms", "step_ms", f"{STEP_VIDEOS} {of}, steps in turn; {table}, table.take", 1),
        line("memory of a process", "MB", "resident_mb", f"at most, above that before opening; {table}", 100),
        line("first rows", "s", "first_s", f"index opened, rows of step 0 and of a step in the middle; {table}", 1),
        line("index read for them", "%", "read_mb", f"of {size_mb:.0f} MB; {table}", 10, 100 / size_mb),
        line("what a slot reads", "us", "block_us", f"blocks of {BLOCK_VIDEOS}, objects made; in each read actor"),
        line("what a slot decodes", "us", "request_us", "row, start, crops, key frame; in each decode actor"),
    ]
