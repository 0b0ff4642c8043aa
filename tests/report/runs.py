"""Folders of runs for tests of reports: written by hand, as a run leaves them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from system.recipe import Recipe, dump_recipe
from system.train.goodput import IDLE, PARTS

BEGAN = 1_750_000_000.0


def lines(steps: int, **changes: Any) -> Iterator[dict[str, Any]]:
    """Yield the values of steps whose loss falls; a change is a value, or a function of the step."""
    for step in range(steps):
        values = {
            "step": step,
            "time": BEGAN + 30 + step,
            "loss": 0.02 + 0.35 * math.exp(-step / 20),
            "lr": 1e-3,
            "grad_norm": 1.0 + 0.1 * math.sin(step),
            "clips_per_s": 30.0 + step % 3,
            "step_s": 0.9,
            "data_wait": 0.01,
            "mfu": None,
            "rss_mb": 900.0 + step,
        }
        yield values | {name: change(step) if callable(change) else change for name, change in changes.items()}


def write_run(folder: Path, recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write a run without checkpoints that was started twice; return its folder."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    half, whole = len(rows) // 2, len(rows)
    first = {"began_s": BEGAN, "from_step": 0, "ranks": 2, "ended_s": BEGAN + 30 + half, "reached": half}
    second = {"began_s": BEGAN + 31 + half, "from_step": half // 2, "ranks": 1, "ended_s": BEGAN + 40 + whole}
    starts = [{**first, "why": "a worker died"}, {**second, "reached": whole, "why": ""}]
    machine = {"cpu": "a processor", "cores": 2, "packages": {"torch": "2.0"}}
    write(folder / "starts" / "00000001.json", {"machine": machine, "starts": starts})
    parts, idle = dict.fromkeys(PARTS, 1000) | {"compute": 9000, "idle": 3000}, dict.fromkeys(IDLE, 1000)
    write(folder / "goodput" / "00000001.json", {"parts_ms": parts, "idle_ms": idle, "reached": whole})
    return folder


def write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def write_bad_videos(folder: Path, videos: Sequence[tuple[str, str]]) -> None:
    """Write the list of bad videos: names and reasons."""
    rows = [
        {"video_id": number, "uri": name, "name": name, "code": "decode", "reason": reason}
        for number, (name, reason) in enumerate(videos)
    ]
    (folder / "quarantine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
