"""How a run goes at one moment, in plain values: shown while it trains, and left in its folder for who looks from afar.

The driver makes it (readings.py) and writes it with the account of its time (goodput.py). Needs Python alone: a laptop
without torch and Ray reads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from system.data.queues import StageNow

# Steps whose mean length says when the run ends: one step alone would make the time left jump.
RECENT_STEPS = 50
# Trainers that said nothing for so many steps, and seconds, are called silent, and have no throughput.
SILENT_STEPS, SILENT_S = 3, 30.0
# What a record says of the trainers' newest step, by the names of metrics.jsonl.
OF_STEP = ("loss", "grad_norm", "lr", "clips_per_s", "data_wait", "mfu")


@dataclass(frozen=True, slots=True)
class Live:
    """A run at one moment. What is not known (yet) is None.

    Attributes:
        run: its name.
        at_s: when it was so, seconds since 1970 by the driver's clock.
        step: steps that are done.
        steps: of the whole run.
        stop: this start ends at so many.
        workers: ranks that train.
        wanted: workers that the recipe asks for: `8`, or `2 to 8`.
        attempts: starts of the worker group in this job.
        silent_s: since the trainers' last word.
        loss: of the newest step.
        grad_norm: of it.
        lr: of it.
        clips_per_s: of it, over all ranks.
        data_wait: share of it that rank 0 waited for data.
        mfu: of it.
        pace_s: mean length of the last steps, seconds.
        stages: of the stream.
        bad_videos: in quarantine.
        checkpoint: steps that the newest checkpoint holds; 0: there is none.
        unkept_s: since that was committed, or since the job began.
        kept_here: it was committed by this job.
        job_s: of this job.
        run_s: of all jobs of the run.
        goodput: share of this job's time that computed steps for the first time.
        price_per_hour: of all that the run holds.
    """

    run: str
    at_s: float
    step: int
    steps: int
    stop: int
    wanted: str
    attempts: int
    silent_s: float
    checkpoint: int
    unkept_s: float
    job_s: float
    run_s: float
    goodput: float
    kept_here: bool = False
    workers: int | None = None
    loss: float | None = None
    grad_norm: float | None = None
    lr: float | None = None
    clips_per_s: float | None = None
    data_wait: float | None = None
    mfu: float | None = None
    pace_s: float | None = None
    bad_videos: int | None = None
    price_per_hour: float | None = None
    stages: tuple[StageNow, ...] = ()

    @property
    def left_s(self) -> float | None:
        """Time to the stop at the pace of the last steps, seconds."""
        return None if self.pace_s is None else max(0, self.stop - self.step) * self.pace_s

    @property
    def cost(self) -> float | None:
        """What all jobs of the run have cost."""
        return None if self.price_per_hour is None else self.price_per_hour * self.run_s / 3600

    @property
    def cost_left(self) -> float | None:
        """What the time left will cost."""
        if self.price_per_hour is None or self.left_s is None:
            return None
        return self.price_per_hour * self.left_s / 3600

    @property
    def silent(self) -> bool:
        """Whether the trainers are at work and have said nothing for longer than their steps take."""
        return self.workers is not None and is_silent(self.silent_s, self.pace_s)

    @property
    def restarts(self) -> int:
        """How often the workers were started again in this job."""
        return max(0, self.attempts - 1)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def live_from(values: Mapping[str, Any]) -> Live | None:
    """Read what `as_dict` wrote; None for the record of a version that says something else."""
    known = {each.name for each in fields(Live)}
    try:
        stages = tuple(StageNow(**each) for each in values.get("stages", ()))
        return Live(**{**{name: value for name, value in values.items() if name in known}, "stages": stages})
    except TypeError:
        return None


def is_silent(silent_s: float, step_s: float | None) -> bool:
    """Say whether trainers that said nothing for so many seconds, and whose steps take so many, are silent."""
    return silent_s > max(SILENT_S, SILENT_STEPS * (step_s or 0.0))


class Pace:
    """The mean length of the last steps."""

    def __init__(self) -> None:
        self._lengths: deque[float] = deque(maxlen=RECENT_STEPS)
        self._step = -1

    def saw(self, step: int, length_s: float) -> None:
        """Take a step's length; the same step counts once."""
        if step != self._step:
            self._step = step
            self._lengths.append(length_s)

    @property
    def mean_s(self) -> float | None:
        """Return it, seconds; None before the first step."""
        return sum(self._lengths) / len(self._lengths) if self._lengths else None


def of_step(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of the trainers' last word; empty before it."""
    standing: Mapping[str, Any] = values.get("standing", {})
    errors: Mapping[str, int] = standing.get("errors", {})
    told = {name: _finite(values.get(name)) for name in OF_STEP}
    return {**told, "workers": standing.get("ranks"), "bad_videos": sum(errors.values()) if standing else None}


def _finite(value: Any) -> Any:
    """Return a number, None where it is none: JSON knows no NaN."""
    return value if isinstance(value, int | float) and value - value == 0 else None
