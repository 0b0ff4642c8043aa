"""What the driver tells of a run at one moment: gauges for a sink, and a record for people (live.py). Pure.

Both are made of the trainers' last word and of the accounts of the job's time; watch.py passes them on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from system.monitoring.series import CODES
from system.train.goodput import Account, cost_of
from system.train.live import Live, is_silent, of_step
from system.train.probed import good


@dataclass(frozen=True, slots=True)
class Reading:
    """A gauge's value: of a series, and of one of its labels besides the run where it has more."""

    name: str
    value: float
    label: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change during a job.

    Attributes:
        steps: of the whole run.
        videos: of the index.
        every_steps: from checkpoint to checkpoint.
        bad_limit: data.max_bad_ratio.
        price_per_hour: None: not given.
        run: its name.
        stop: this start ends at so many steps.
        wanted: workers that the recipe asks for, for a line.
    """

    steps: int
    videos: int
    every_steps: int
    bad_limit: float
    price_per_hour: float | None = None
    run: str = ""
    stop: int = 0
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """What the driver knows at one time.

    Attributes:
        now: seconds since 1970.
        silent_s: since the trainers' last word.
        unkept_s: since the newest checkpoint.
        attempts: of this job.
        job: where its time went.
        run: the same of all jobs of the run.
        probes: rows of probe.jsonl.
    """

    now: float
    silent_s: float
    unkept_s: float
    attempts: int
    job: Account
    run: Account
    probes: Sequence[Mapping[str, Any]] = ()


# Values of metrics.jsonl by the series that they are.
_OF_STEPS = {
    "tubelet_step_seconds": "step_s",
    "tubelet_data_wait_ratio": "data_wait",
    "tubelet_loss": "loss",
    "tubelet_grad_norm": "grad_norm",
    "tubelet_learning_rate": "lr",
    "tubelet_mfu_ratio": "mfu",
}
_OF_STANDING = {
    "tubelet_ranks": "ranks",
    "tubelet_checkpoint_step": "checkpoint",
    "tubelet_bad_ratio": "bad_ratio",
    "tubelet_slots": "slots",
    "tubelet_slots_substituted": "substituted",
    "tubelet_slots_skipped": "skipped",
    "tubelet_slots_fallback": "fallback",
}


def _share(account: Account) -> float:
    return account.parts["compute"] / max(1, account.whole)


def readings(facts: Facts, values: Mapping[str, Any], at: Moment) -> list[Reading]:
    """Return the gauges of a moment.

    Args:
        facts: of the job.
        values: the trainers' last word, with `standing`; empty before their first step.
        at: what else is known.
    """
    found = [
        Reading("tubelet_steps_planned", facts.steps),
        Reading("tubelet_videos", facts.videos),
        Reading("tubelet_bad_ratio_limit", facts.bad_limit),
        Reading("tubelet_checkpoint_every_steps", facts.every_steps),
        Reading("tubelet_silence_seconds", at.silent_s),
        Reading("tubelet_checkpoint_age_seconds", at.unkept_s),
        Reading("tubelet_attempts", at.attempts),
        *(Reading("tubelet_job_seconds", ms / 1000, ("part", part)) for part, ms in at.job.parts.items()),
        Reading("tubelet_goodput_ratio", _share(at.job)),
        Reading("tubelet_run_goodput_ratio", _share(at.run)),
    ]
    if facts.price_per_hour is not None:
        found.append(Reading("tubelet_price_per_hour", facts.price_per_hour))
        found.append(Reading("tubelet_cost", cost_of(at.run, facts.price_per_hour)))
    return [*found, *_probed(at.probes), *(_told(values, at) if values else [])]


def _probed(rows: Sequence[Mapping[str, Any]]) -> list[Reading]:
    """Return the gauges of a run's probes; none where there was not one."""
    done = good(rows)
    found = [Reading("tubelet_probes_failed", len(rows) - len(done))] if rows else []
    if done:
        tops = {name: value for name, value in done[-1].items() if name.endswith("_top1")}
        kinds = {name.removeprefix("probe/").removesuffix("_top1"): value for name, value in tops.items()}
        found.append(Reading("tubelet_probe_step", done[-1]["step"]))
        found += [Reading("tubelet_probe_top1_ratio", value, ("probe", kind)) for kind, value in kinds.items()]
    return found


def _told(values: Mapping[str, Any], at: Moment) -> list[Reading]:
    """Return the gauges of the trainers' last word."""
    standing: Mapping[str, Any] = values.get("standing", {})
    stands = is_silent(at.silent_s, values["step_s"])
    errors: Mapping[str, int] = standing.get("errors", {})
    return [
        Reading("tubelet_step", values["step"] + 1),
        Reading("tubelet_clips_per_second", 0.0 if stands else values["clips_per_s"]),
        Reading("tubelet_trainer_memory_bytes", values["rss_mb"] * 2**20),
        *(Reading(name, values[key]) for name, key in _OF_STEPS.items() if values.get(key) is not None),
        *(Reading(name, standing[key]) for name, key in _OF_STANDING.items() if key in standing),
        Reading("tubelet_quarantined_videos", sum(errors.values())),
        # Also those that have not happened: a series that begins at 3 has not risen.
        *(Reading("tubelet_decode_errors", errors.get(code, 0), ("code", code)) for code in {*CODES, *errors}),
    ]


def live_of(facts: Facts, values: Mapping[str, Any], at: Moment, kept: int, pace_s: float | None) -> Live:
    """Return the record of a moment, without the stream's stages.

    Args:
        facts: of the job.
        values: the trainers' last word, with `standing`; its step alone where they are started again; empty before it.
        at: what else is known.
        kept: steps that the newest checkpoint holds.
        pace_s: mean length of the last steps.
    """
    return Live(
        run=facts.run,
        at_s=at.now,
        step=int(values["step"]) + 1 if values else kept,
        steps=facts.steps,
        stop=facts.stop,
        wanted=facts.wanted,
        attempts=at.attempts,
        silent_s=at.silent_s,
        checkpoint=kept,
        unkept_s=at.unkept_s,
        job_s=at.job.whole / 1000,
        run_s=at.run.whole / 1000,
        goodput=_share(at.job),
        pace_s=pace_s,
        price_per_hour=facts.price_per_hour,
        **of_step(values),
    )
