"""Which curves a report has: from metrics and starts to charts, of one run or of several laid over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from system.report.curves import Band, Chart, Line, Mark
from system.report.metric_lines import Metrics, Values
from system.report.reference import Reference
from system.train.starts import Start

# Name of the column -> title, unit, and what it is multiplied with.
PLAIN: dict[str, tuple[str, str, float]] = {
    "lr": ("Learning rate", "", 1.0),
    "grad_norm": ("Gradient norm", "", 1.0),
    "clips_per_s": ("Throughput", "clips/s", 1.0),
    "data_wait": ("Data wait", "% of the step", 100.0),
    "mfu": ("Model FLOPs utilisation", "%", 100.0),
    "rss_mb": ("Resident memory of rank 0", "MiB", 1.0),
    "step_s": ("Length of a step", "s", 1.0),
}
# Colours that the page has.
COLOURS = 8
# Columns whose charts may be logarithmic.
LOG = ("loss", "grad_norm")
# Restarts, and steps that are left out, that a chart marks, the newest: each stands on every chart with its reason.
MARKS = 50
# Parts of a loss on one chart.
PARTS = COLOURS


@dataclass(frozen=True, slots=True)
class Clock:
    """The time axis of a run: where it begins, seconds since 1970, its unit, and how many seconds that is."""

    began_s: float
    unit: str
    seconds: float

    def __call__(self, at_s: Values) -> Values:
        """Return times on the axis."""
        return np.round((at_s - self.began_s) / self.seconds, 4)


def clock_of(times: Values, starts: Sequence[Start]) -> Clock | None:
    """Return the time axis of a run; None if no time is known."""
    known = [*times[np.isfinite(times)].tolist(), *(start.began_s for start in starts)]
    known += [start.ended_s for start in starts if start.ended_s is not None]
    if not known:
        return None
    whole = max(known) - min(known)
    for unit, seconds in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if whole >= 3 * seconds:
            return Clock(min(known), unit, seconds)
    return Clock(min(known), "seconds", 1.0)


def restarts(starts: Sequence[Start]) -> list[tuple[Start, Start]]:
    """Return each start after the first, with the one before it."""
    return list(pairwise(starts))


def marked(starts: Sequence[Start]) -> list[tuple[Start, Start]]:
    """Return those of them that a chart marks."""
    return restarts(starts)[-MARKS:]


def why_ended(start: Start) -> str:
    """Return why a start ended, in words."""
    if start.ended_s is None:
        return "it did not say: its job was killed, or its machine is gone"
    return start.why or "the run's stop"


def step_marks(starts: Sequence[Start], skips: Mapping[int, str]) -> tuple[Mark, ...]:
    """Mark the restarts on the axis of steps, with the steps that were done again, and the steps that are left out."""
    marks = [
        Mark(
            new.from_step,
            f"restart at step {new.from_step}: {why_ended(old)}",
            max(new.from_step, old.reached if old.reached is not None else new.from_step),
        )
        for old, new in marked(starts)
    ]
    return tuple(marks + [Mark(step, f"step {step} is left out: {why}") for step, why in list(skips.items())[-MARKS:]])


def time_marks(starts: Sequence[Start], clock: Clock) -> tuple[Mark, ...]:
    """Mark the restarts on the axis of time, with the time between the end of one start and the next."""
    return tuple(
        Mark(
            float(clock(np.array([new.began_s]))[0]),
            f"restart at step {new.from_step}: {why_ended(old)}",
            float(clock(np.array([old.ended_s if old.ended_s is not None else new.began_s]))[0]),
        )
        for old, new in marked(starts)
    )


def run_charts(
    metrics: Metrics, starts: Sequence[Start], skips: Mapping[int, str], reference: Reference | str
) -> list[Chart]:
    """Return the charts of one run; what was never logged has none."""
    marks = step_marks(starts, skips)
    steps = metrics["step"]
    charts = [
        Chart("Loss", (Line("loss", steps, metrics["loss"]),), marks=marks, band=_band(reference, steps), log=True)
    ]
    parts = metrics.names("loss/")[:PARTS]
    if parts:
        lines = [Line(name.removeprefix("loss/"), steps, metrics[name], n) for n, name in enumerate(parts)]
        charts.append(Chart("Parts of the loss", tuple(lines), marks=marks, log=True))
    for name, (title, unit, factor) in PLAIN.items():
        if metrics.has(name):
            line = Line(title.lower(), steps, factor * metrics[name])
            charts.append(Chart(title, (line,), unit, marks=marks, log=name in LOG))
    clock = clock_of(metrics["time"], starts)
    if clock is not None:
        charts += _over_time(metrics, starts, clock)
    return charts


def probe_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return the accuracy of the probes of a run's checkpoints; no chart where there were none."""
    names = sorted({name for row in rows for name in row if name.startswith("probe/") and name.endswith("_top1")})
    steps = np.array([float(row["step"]) for row in rows])
    lines = [
        Line(
            name.removeprefix("probe/").removesuffix("_top1"),
            steps,
            np.array([100.0 * row.get(name, np.nan) for row in rows]),
            number % COLOURS,
        )
        for number, name in enumerate(names)
    ]
    return [Chart("Accuracy of probes", tuple(lines), "top-1, %")] if lines else []


def _band(reference: Reference | str, steps: Values) -> Band | None:
    if not isinstance(reference, Reference) or not len(steps):
        return None
    points = [each for each in reference.points if steps[0] <= each.step - 1 <= steps[-1]]
    columns = ([each.step - 1.0 for each in points], [each.low for each in points], [each.high for each in points])
    return Band(*(np.array(column) for column in columns)) if points else None


def _over_time(metrics: Metrics, starts: Sequence[Start], clock: Clock) -> list[Chart]:
    """Return progress and throughput on the time axis; what was done and lost is a line of its own."""
    times, marks = clock(metrics["time"]), time_marks(starts, clock)
    # A line does not go on over the time between two starts.
    cuts = np.searchsorted(metrics["time"], [start.began_s for start in starts[1:]])
    times = np.insert(times, cuts, np.nan)
    lines = [Line("kept", times, np.insert(metrics["step"] + 1, cuts, np.nan))]
    lost = [
        Line(
            "lost and done again",
            clock(np.array([old.began_s, old.ended_s])),
            np.array([old.from_step, old.reached], np.float64),
            5,
        )
        for old, new in marked(starts)
        if old.ended_s is not None and old.reached is not None and old.reached > new.from_step
    ]
    charts = [Chart("Steps over time", tuple(lines + lost), "steps", clock.unit, marks)]
    if metrics.has("clips_per_s"):
        rate = Line("clips/s", times, np.insert(metrics["clips_per_s"], cuts, np.nan))
        charts.append(Chart("Throughput over time", (rate,), "clips/s", clock.unit, marks))
    return charts


def overlaid(runs: Mapping[str, Metrics]) -> list[Chart]:
    """Return the charts of several runs over each other, each in its colour."""
    wanted = {"loss": ("Loss", "", 1.0), **PLAIN}
    parts = sorted({name for metrics in runs.values() for name in metrics.names("loss/")})
    wanted |= {name: (f"Loss: {name.removeprefix('loss/')}", "", 1.0) for name in parts}
    charts = []
    for name, (title, unit, factor) in wanted.items():
        lines = [
            Line(run, metrics["step"], factor * metrics[name], number % COLOURS)
            for number, (run, metrics) in enumerate(runs.items())
            if metrics.has(name)
        ]
        if lines:
            charts.append(Chart(title, tuple(lines), unit, log=name.startswith(LOG)))
    return charts
