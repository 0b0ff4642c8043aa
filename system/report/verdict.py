"""Whether a run is healthy, and why: from plain values to checks with a value, a rule and what to do.

`good`: as it should be; `look`: worth a look; `bad`: the run is not healthy; `open`: not known, or nothing to judge by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from system.report.markup import counted
from system.report.metric_lines import Metrics, Values
from system.report.reference import WINDOW, Reference, compare_loss

Status = Literal["good", "look", "bad", "open"]

# A gradient's norm above this many times the median of the steps before it is a spike.
SPIKE = 10.0
# Steps before a step by which it is judged.
BEFORE = 50
# Share of steps with a spike, or without a finite gradient, above which they are worth a look, and bad.
ODD_LOOK, ODD_BAD = 0.0, 0.02
# Share of the trainers' time that they waited for data.
WAIT_LOOK, WAIT_BAD = 0.05, 0.25
# Share of videos that cannot be read.
BAD_VIDEOS_LOOK = 0.01
# Share of a run's time that computed steps for the first time; shorter runs are mostly their start.
GOODPUT_GOOD, GOODPUT_FROM_S = 0.5, 3600.0
# Share of the logged steps at a run's start and at its end whose losses are compared where there is no reference.
ENDS = 0.1
# Of its fall from there to its lowest, the share that a loss has risen again above which it is worth a look.
RISEN = 1 / 3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of it.
        status: how it is.
        value: what was found.
        rule: what is good.
        advice: what to do; "" if there is nothing to do.
    """

    name: str
    status: Status
    value: str
    rule: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks of a run."""

    checks: tuple[Check, ...]

    @property
    def status(self) -> Status:
        """The worst of what is known; `open` if nothing is."""
        found = {check.status for check in self.checks}
        return next((each for each in ("bad", "look", "good") if each in found), "open")

    @property
    def headline(self) -> str:
        """A few words."""
        words = {"bad": "Not healthy", "look": "Healthy, with something to look at", "good": "Healthy"}
        return words.get(self.status, "Nothing to judge yet")

    @property
    def reason(self) -> str:
        """A sentence: what makes it so."""
        deciding = [check for check in self.checks if check.status == self.status]
        if self.status in ("bad", "look"):
            return "; ".join(f"{check.name.lower()}: {check.value}" for check in deciding)
        unknown = [check.name.lower() for check in self.checks if check.status == "open"]
        left = f"; not judged: {', '.join(unknown)}" if unknown else ""
        return f"{len(deciding)} of {len(self.checks)} checks are good{left}" if self.status == "good" else left[2:]


@dataclass(frozen=True, slots=True)
class Videos:
    """What became of a run's videos.

    Attributes:
        known: videos of the index, and files that it leaves out as unreadable; 0: not known.
        bad: of these, the ones that could not be read.
        slots: of the plan that are done.
        replaced: of these, the ones without their own video.
        limit: data.max_bad_ratio.
    """

    known: int
    bad: int
    slots: int
    replaced: int
    limit: float


def check_loss(metrics: Metrics, reference: Reference | str) -> Check:
    """Judge the loss: against the recipe's band where there is one, else by whether it is finite and falls."""
    name = "Loss"
    if not len(metrics):
        rule = _band_rule(reference) if isinstance(reference, Reference) else _fall_rule(reference)
        return Check(name, "open", "not a step was logged", rule)
    values = metrics.finite("loss")
    if not len(values) or not np.isfinite(metrics["loss"][-1]):
        return Check(
            name,
            "bad",
            "the newest one is not finite",
            "finite",
            "lower train.base_lr, set train.clip_grad, or use engine.precision=fp32",
        )
    if isinstance(reference, Reference):
        return _check_band(metrics, reference)
    return _check_fall(values, reference)


def _band_rule(reference: Reference) -> str:
    return f"inside of the band of {reference.about}"


def _fall_rule(why: str) -> str:
    return f"lower at the end than at the start, and near its lowest; no reference: {why}"


def _check_fall(values: Values, why: str) -> Check:
    """Judge a loss without a reference, and say why there is none."""
    name = "Loss"
    count = max(1, int(ENDS * len(values)))
    first, last = float(values[:count].mean()), float(values[-count:].mean())
    lowest = float(_means(values, count).min())
    rule = _fall_rule(why)
    told = f"{first:.4g} -> {last:.4g}"
    if len(values) < 2 * count or len(values) < 10:
        return Check(name, "open", f"{told}, {len(values)} logged steps", rule)
    if last - lowest > RISEN * (first - lowest) and lowest < first:
        told = f"{first:.4g} -> {lowest:.4g} -> {last:.4g}"
        return Check(name, "look", told, rule, "it rose again: lower train.base_lr, or go on from a checkpoint before")
    if last < first:
        return Check(name, "good", told, rule)
    advice = "compare learning rate, warm-up and batch with the recipe that this one is made of"
    return Check(name, "look", told, rule, advice)


def _means(values: Values, count: int) -> Values:
    """Return the mean of each `count` values that follow each other."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    means: Values = (sums[count:] - sums[:-count]) / count
    return means


def _check_band(metrics: Metrics, reference: Reference) -> Check:
    points = compare_loss(reference, metrics["step"], metrics["loss"])
    rule = _band_rule(reference)
    if not points:
        told = f"no point of the band is reached yet, its first is step {reference.first}"
        if metrics["step"][-1] >= reference.first:
            told = f"no step is logged of the {WINDOW} before any of the band's points: see telemetry.log_every_steps"
        return Check("Loss", "open", told, rule)
    point = points[-1]
    told = f"{point.found:.4g} at step {point.step}, band {point.low:.4g} to {point.high:.4g}"
    # The band is one of means: of fewer steps than they are made of, what is outside of it may be a batch's chance.
    few = point.of < WINDOW
    told += f", by {counted(point.of, 'logged step')} of the {WINDOW} before it" if few else ""
    outside = [each for each in points if not each.low <= each.found <= each.high]
    if point in outside:
        above = point.found > point.high
        advice = (
            "the run learns less than the reference: compare its videos and versions"
            if above
            else ("lower than was ever measured: see whether the masks hide what they should (gallery below)")
        )
        return Check("Loss", "bad" if above and not few else "look", told, rule, advice)
    if outside:
        where = ", ".join(str(each.step) for each in outside)
        return Check("Loss", "look", f"{told}; outside of it at step {where}", rule, "see the curve of the loss below")
    return Check("Loss", "good", f"{told}; {len(points)} points compared", rule)


def spikes(norms: Values) -> list[int]:
    """Return the places of norms above `SPIKE` times the median of the finite ones before them (10 at least)."""
    found: list[int] = []
    there = np.flatnonzero(np.isfinite(norms))
    values = norms[there]
    for place in range(10, len(values)):
        before = values[max(0, place - BEFORE) : place]
        if values[place] > SPIKE * max(float(np.median(before)), 1e-12):
            found.append(int(there[place]))
    return found


def check_gradient(metrics: Metrics, skipped: int, done: int) -> Check:
    """Judge the gradient's norm: finite, without spikes, and no step left out.

    Args:
        metrics: of the run: every `telemetry.log_every_steps` one.
        skipped: of all steps, those that were left out.
        done: steps.
    """
    name, norms = "Gradient norm", metrics["grad_norm"]
    rule = f"finite, no step above {SPIKE:g} times the median of the {BEFORE} before it, none left out"
    if not len(norms):
        return Check(name, "open", "not a step was logged", rule)
    wild, high = int((~np.isfinite(norms)).sum()), spikes(norms)
    finite = norms[np.isfinite(norms)]
    middle = f"median {np.median(finite):.3g}, largest {finite.max():.3g}" if len(finite) else "not one is finite"
    told = f"{middle}; {wild} not finite, {counted(len(high), 'spike')}, {counted(skipped, 'step')} left out"
    share = max((wild + len(high)) / len(norms), skipped / max(1, done))
    if not len(finite) or share > ODD_BAD or not np.isfinite(norms[-1]):
        return Check(name, "bad", told, rule, "lower train.base_lr, set train.clip_grad, lengthen the warm-up")
    if share > ODD_LOOK:
        steps = ", ".join(f"{metrics['step'][place]:.0f}" for place in high[:5])
        advice = (
            f"look at the clips of step {steps}: `python -m jobs.replay --run ... --step N`"
            if high
            else ("skips.json and the audit name the steps that were left out")
        )
        return Check(name, "look", told, rule, advice)
    return Check(name, "good", told, rule)


def check_data_wait(metrics: Metrics, first_steps: Sequence[int]) -> Check:
    """Judge how long the trainers waited for data, the first logged step of each start left out.

    Args:
        metrics: of the run.
        first_steps: the steps at which worker groups started.
    """
    name, rule = "Data wait", f"at most {WAIT_LOOK:.0%} of the steps' time"
    waits, seconds = metrics["data_wait"], metrics["step_s"]
    place = np.searchsorted(metrics["step"], np.array([0, *first_steps], np.float64))
    judged = np.isfinite(waits) & np.isfinite(seconds)
    judged[place[place < len(waits)]] = False
    if not judged.any():
        return Check(name, "open", "too few steps", rule)
    share = float((waits[judged] * seconds[judged]).sum() / max(seconds[judged].sum(), 1e-12))
    told = f"{share:.1%} of the steps' time"
    if share <= WAIT_LOOK:
        return Check(name, "good", told, rule)
    advice = "add decode actors (resources.decode_actors) or make the videos cheaper to decode (jobs.make_shards)"
    return Check(name, "look" if share <= WAIT_BAD else "bad", told, rule, advice)


def check_videos(videos: Videos) -> Check:
    """Judge how many videos could not be read."""
    name = "Bad videos"
    rule = f"at most {BAD_VIDEOS_LOOK:.0%} of the videos and of the slots; above {videos.limit:.0%} a run stops"
    if not videos.known:
        found = counted(videos.bad, "video") if videos.bad else "none is known"
        return Check(name, "open", f"{found}; of how many is not known", rule)
    share, slots = videos.bad / max(1, videos.known), videos.replaced / max(1, videos.slots)
    told = f"{videos.bad} of {counted(videos.known, 'video')} ({share:.1%})"
    told += f"; {videos.replaced} of {counted(videos.slots, 'slot')} without their own video"
    worst = max(share, slots)
    if worst <= BAD_VIDEOS_LOOK:
        return Check(name, "good", told, rule)
    status: Status = "bad" if worst > videos.limit else "look"
    return Check(name, status, told, rule, "the list below has the reasons; mend the files, or leave them out")


def check_goodput(parts: Mapping[str, int]) -> Check:
    """Judge the share of a run's time that computed steps for the first time.

    Args:
        parts: part -> milliseconds, as in the account of a run's time; empty: there is none.
    """
    name, whole = "Goodput", sum(parts.values())
    rule = f"at least {GOODPUT_GOOD:.0%} of the run's time computes steps for the first time"
    if not whole:
        return Check(name, "open", "no account of the time", rule)
    share = parts.get("compute", 0) / whole
    told = f"{share:.0%} of {whole / 1000:,.0f} s"
    if share >= GOODPUT_GOOD:
        return Check(name, "good", told, rule)
    if whole < 1000 * GOODPUT_FROM_S:
        return Check(name, "open", f"{told}; a run of under an hour is mostly its start", rule)
    worst = max((part for part in parts if part != "compute"), key=lambda part: parts[part])
    return Check(name, "look", told, rule, f"most of the rest is `{worst}`: see where the time went, below")
