"""What probes of a run's checkpoints have found: probe.jsonl, written by the driver beside metrics.jsonl.

A file of its own: a result comes long after its step, the last one after the trainers have ended, and metrics.jsonl
belongs to rank 0, in the order of the steps. A row's step is the checkpoint's: N is the state after N steps, on which
the row `step: N` of metrics.jsonl has its loss.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from system import storage

PROBES = "probe.jsonl"
# Of nearest neighbours a curve shows one k: this, or the largest below it that there are videos for.
SHOWN_NEIGHBOURS = 10
SCORES = ("top1", "top5", "per_class")


def probes_uri(run_uri: str) -> str:
    """Return where a run's probes are kept."""
    return storage.join(run_uri, PROBES)


def read_probes(run_uri: str) -> list[dict[str, Any]]:
    """Return what a run's probes have found, by step; rows with `error` failed. Empty where there were none."""
    try:
        lines = storage.read(probes_uri(run_uri)).decode().splitlines()
    except storage.MissingError:
        return []
    return [json.loads(line) for line in lines if line]


def good(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of probes that did not fail."""
    return [dict(row) for row in rows if "error" not in row]


def standing_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what a summary says of a run's probes: the newest one's scores, and how many failed; None: there are none.

    What each learning rate and each number of neighbours gave stands in probe.jsonl.
    """
    if not rows:
        return None
    done = good(rows)
    newest = {name: value for name, value in done[-1].items() if name != "probes"} if done else None
    return {"newest": newest, "probes": len(done), "failed": len(rows) - len(done)}


def scores_of(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the curves of what `fit_probes` found: `probe/knn_top1` and so on, shares."""
    curves: dict[str, float] = {}
    for kind, told in found.items():
        shown = max((count for count in told if int(count) <= SHOWN_NEIGHBOURS), key=int) if kind == "knn" else None
        scores = told if shown is None else told[shown]
        curves |= {f"probe/{kind}_{name}": scores[name] for name in SCORES}
    return curves


def probe_line(row: Mapping[str, Any]) -> str:
    """Say in a line what a probe found."""
    tops = [
        f"{name.removeprefix('probe/').removesuffix('_top1')} {value:.1%}"
        for name, value in row.items()
        if name.endswith("_top1")
    ]
    return f"probe of step {row['step']}: top-1 {', '.join(tops)}, {row['probe/seconds']:.0f} s"


class Probed:
    """A run's probes, as one job keeps them.

    Args:
        run_uri: the run's folder.

    Attributes:
        rows: by step, each step once.
    """

    def __init__(self, run_uri: str) -> None:
        self._run = run_uri
        self.rows = read_probes(run_uri)
        self._aside: dict[int, dict[str, Any]] = {}

    @property
    def newest(self) -> int:
        """The newest step that was probed, well or not; 0: none."""
        return max((int(row["step"]) for row in self.rows), default=0)

    def back_to(self, step: int) -> None:
        """Set the rows of later steps aside: the trainers do these steps again, and may come to other weights."""
        self._aside |= {row["step"]: row for row in self.rows if row["step"] > step}
        self.rows = [row for row in self.rows if row["step"] <= step]

    def known(self, step: int) -> dict[str, Any] | None:
        """Return the row that was set aside of a step; its `weights_sha256` says of which weights."""
        return self._aside.get(step)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, in the run's folder as well.

        Raises:
            StorageFault: if storage does not answer; a later row is written with this one.
        """
        self._aside.pop(row["step"], None)
        others = [each for each in self.rows if each["step"] != row["step"]]
        self.rows = sorted([*others, row], key=lambda each: int(each["step"]))
        storage.write(probes_uri(self._run), "".join(f"{json.dumps(each)}\n" for each in self.rows).encode())


@dataclass(slots=True)
class Turns:
    """Which checkpoint is probed next: one at a time, and a newer due one takes the place of one that waits. Pure.

    Attributes:
        every: the first checkpoint from each multiple of it on is due.
        newest: the newest step that was taken up; what was probed by earlier jobs counts.
        committed: the newest checkpoint.
        waiting: is due, and waits.
        running: is probed now.
        passed_over: how many were replaced while they waited.
    """

    every: int
    newest: int = 0
    committed: int = 0
    waiting: int | None = None
    running: int | None = None
    passed_over: int = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way and nothing waits."""
        return self.waiting is None and self.running is None

    def saw(self, step: int) -> bool:
        """Take in the newest checkpoint; return whether the trainers went back behind what they had kept."""
        back = step < self.committed
        self.committed = step
        if back:
            self.newest = min(self.newest, step)
            self.waiting = None if self.waiting is not None and self.waiting > step else self.waiting
        if step // self.every > self.newest // self.every:
            self._wait(step)
        return back

    def last(self, step: int) -> None:
        """Take in the run's last checkpoint, which is due in any case."""
        self.committed = step
        if step > self.newest:
            self._wait(step)

    def _wait(self, step: int) -> None:
        self.passed_over += self.waiting is not None
        self.waiting = self.newest = step

    def begin(self) -> int | None:
        """Return the step to probe now, if one waits and none is probed."""
        if self.running is not None or self.waiting is None:
            return None
        self.running, self.waiting = self.waiting, None
        return self.running

    def end(self) -> bool:
        """Take in that the probe has ended; return whether its checkpoint is still one of the run's."""
        step, self.running = self.running, None
        return step is not None and step <= self.committed

    def put_back(self) -> None:
        """Let the checkpoint that is probed wait again, unless a newer one does."""
        if self.waiting is None and self.running is not None and self.running <= self.committed:
            self.waiting = self.running
        self.running = None
