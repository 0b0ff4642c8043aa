"""One start of a run, watched: `python -m system.benchmark.start_of_run RECIPE FOLDER NAME`. startup.py reads it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from system.chaos.processes import below, cpu_s, everyone
from system.data.dataset import ensure_index, run_uri
from system.recipe import load_recipe
from system.train.attempts import train
from system.train.goodput import Book
from system.train.launch import connect, open_run
from system.train.shift import Shift

# Seconds between two looks at the processes.
LOOK_S = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")


class Watch:
    """Notes when the processes below this one are born and take their last title, and their CPU time."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], dict[str, Any]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._go, name="watch", daemon=True)
        self._thread.start()

    def _go(self) -> None:
        while not self._end.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        now, up = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
        for each in below(os.getpid(), everyone()):
            # A method that runs is part of an actor's title.
            title = each.title[:80] if "MapWorker" not in each.title else each.title.partition(").")[0] + ")"
            title = title if "MapWorker" in title or not title.startswith("ray::") else title.partition(".")[0]
            born = now - up + each.started / _TICKS
            seen = self._seen.setdefault(
                (each.pid, each.started), {"title": "", "born": born, "ready": now, "cpu_s": 0.0}
            )
            if seen["title"] != title:
                seen |= {"title": title, "ready": now}
            seen["cpu_s"] = max(seen["cpu_s"], cpu_s(each.pid))

    def stop(self, since: float) -> list[dict[str, Any]]:
        """Return the processes of the job; times in seconds since then."""
        self._end.set()
        self._thread.join()
        ours = [each for each in self._seen.values() if each["title"].startswith("ray::") or "system." in each["title"]]
        return [
            {
                "title": each["title"],
                "born_s": each["born"] - since,
                "ready_s": each["ready"] - since,
                "cpu_s": each["cpu_s"],
            }
            for each in sorted(ours, key=lambda each: float(each["born"]))
        ]


def main(recipe_file: str, folder: str, name: str) -> None:
    """Start the run and write what was seen to FOLDER/NAME.json."""
    recipe = load_recipe(recipe_file, [f"run.storage={folder}/runs", f"run.name={name}", "train.steps=3"])
    index = ensure_index(recipe, workers=2, say=_nothing)
    state = open_run(recipe, index, _nothing)
    shift = Shift(Book(run_uri(recipe), 0, time.time()))
    first: list[float] = []
    processes: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        connect(recipe, "local", temp_dir=scratch)
        began, watch = time.time(), Watch()

        def show(values: dict[str, Any], _schedule: Any) -> None:
            if not first:
                first.append(values["time"])
                processes.extend(watch.stop(began))

        train(recipe, state, say=_nothing, show=show, shift=shift)
    found = {"first_step_s": first[0] - began, "processes": processes}
    (Path(folder) / f"{name}.json").write_text(json.dumps(found))


def _nothing(_line: str) -> None:
    """Say nothing: the benchmark tells the result."""


if __name__ == "__main__":
    main(*sys.argv[1:4])
