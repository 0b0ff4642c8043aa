"""What a capacity plan is made of and what it says: records without behaviour."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from system.planning.capacity import Prices, Reencoding, Stage, Units
from system.planning.rates import Rate


@dataclass(frozen=True, slots=True)
class Reencoded:
    """What re-encoding did to a few videos.

    Attributes:
        videos: how many.
        px_per_s: source px that a core re-encoded in a second.
        faster: clips/s of a core after it, over those before.
        bytes_ratio: size after it, over that before.
    """

    videos: int
    px_per_s: float
    faster: float
    bytes_ratio: float


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured, or is assumed where it could not be.

    Attributes:
        storage: of one read actor.
        decode: of one core.
        mask: of one core or one mask actor; None: it needs a GPU that is not here.
        step: of one worker, padding counted as clips.
        reencoded: what re-encoding did to a few videos, or why that is not known.
        video_px: source px of all frames of a video, the mean of the sample.
        stall_s: for copying the whole training state to the host, on one rank.
        state_bytes: of that state.
        write_bytes_per_s: of one writer into the run's storage; None: not measured.
        device_bytes: most that a step took of a GPU's memory; None: not measured.
        assumed: sentences on what the figures rest on besides.
    """

    storage: Rate
    decode: Rate
    mask: Rate | None
    step: Rate
    reencoded: Reencoded | str
    video_px: float
    stall_s: float
    state_bytes: int
    write_bytes_per_s: float | None = None
    device_bytes: int | None = None
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user says of the machines.

    Attributes:
        worker: what a worker is on, for a person.
        on_gpu: whether that is a GPU.
        margin: share of cores and actors beyond what the workers take.
        prices: of hours.
        preemptions_per_day: of the whole run; None: not said.
        restart_s: from a preemption to the next step.
    """

    worker: str
    on_gpu: bool
    margin: float
    prices: Prices
    preemptions_per_day: float | None
    restart_s: float


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run it.

    Attributes:
        name: of it.
        units: of each stage.
        limit: the stage that limits it.
        clips_per_s: of the whole run.
        hours: of the run, preemptions counted where they were said.
        gpu_hours: of all GPUs.
        core_hours: of all CPU cores, those of `once_core_hours` among them.
        once_core_hours: of re-encoding.
        cost: None: no price was given.
    """

    name: str
    units: Units
    limit: Stage
    clips_per_s: float
    hours: float
    gpu_hours: float
    core_hours: float
    once_core_hours: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """How often to write checkpoints at the rate of one way to run it, of a plan's the balanced one; seconds.

    Attributes:
        between_s: mean time from one preemption to the next.
        stall_s: the training stands still for so long, each rank copying its share.
        write_s: until a checkpoint counts, behind the training; None: not measured.
        restart_s: from a preemption to the next step.
        young_s: Young's interval.
        daly_s: Daly's interval.
        every_steps: what `checkpoint.every_steps` should be.
        overhead: share of the run's time that preemptions and checkpoints then add.
        own_every_steps: what the recipe says.
        own_overhead: what they add with that.
    """

    between_s: float
    stall_s: float
    write_s: float | None
    restart_s: float
    young_s: float
    daly_s: float
    every_steps: int
    overhead: float
    own_every_steps: int
    own_overhead: float


@dataclass(frozen=True, slots=True)
class StageLine:
    """A stage of the run as its recipe stands; `clips_per_s` None: not known."""

    stage: Stage
    unit: str
    rate: Rate | None
    units: int
    clips_per_s: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it.

    Attributes:
        run: its name.
        videos: of its index.
        epochs: over them.
        steps: of the run.
        clips: of the run.
        worker: what a worker is on.
        stages: in the order of the stream.
        cores_per_worker: that decode, and mask where that is beside it, with the margin.
        margin: that share.
        ways: how it could be run; the first is as the recipe stands.
        reencoding: the reckoning, or why there is none.
        reencoded: what was measured for it.
        checkpoints: None: no preemptions were said.
        clip_bytes: of one decoded clip.
        blocks_per_s: that the stream carries, as the recipe stands.
        lookahead_bytes: of the object store, for the blocks ahead of the trainers.
        store_bytes: of the object store, that the stream may take.
        state_bytes: of a checkpoint.
        device_bytes: of a GPU's memory, as measured.
        assumed: sentences.
    """

    run: str
    videos: int
    epochs: float
    steps: int
    clips: int
    worker: str
    stages: tuple[StageLine, ...]
    cores_per_worker: float
    margin: float
    ways: tuple[Way, ...]
    reencoding: Reencoding | str
    reencoded: Reencoded | None
    checkpoints: Checkpoints | None
    clip_bytes: int
    blocks_per_s: float
    lookahead_bytes: int
    store_bytes: int
    state_bytes: int
    device_bytes: int | None
    assumed: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        made = asdict(self)
        if isinstance(self.reencoding, Reencoding):
            derived = ("once_hours", "saved_hours", "break_even_epochs", "pays")
            made["reencoding"] |= {name: getattr(self.reencoding, name) for name in derived}
        plain: dict[str, Any] = _finite(made)
        return plain


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for, such as the hours of a run that never ends, by None."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
