"""Who limits a run, how many cores a worker wants, whether re-encoding pays, and what it all costs. Arithmetic alone.

Rates are in clips a second. A core is one CPU core at work for decoding; a worker is one rank, on a GPU or on CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

Stage = Literal["storage", "decode", "mask", "step"]
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Speeds:
    """What one unit of each stage does alone, clips/s, all above 0.

    Attributes:
        storage: one read actor.
        decode: one core that decodes and makes no masks.
        mask: one core, or one actor of the mask stage, that makes masks; None: not known, and taken as no limit.
        step: one worker.
    """

    storage: float
    decode: float
    mask: float | None
    step: float


@dataclass(frozen=True, slots=True)
class Units:
    """How many of each a run has.

    Attributes:
        read_actors: that fetch bytes.
        decode_actors: one core each.
        mask_actors: of a stage of its own; 0: decode actors make the masks.
        workers: that train.
    """

    read_actors: int
    decode_actors: int
    mask_actors: int
    workers: int


def decode_seconds(speeds: Speeds, units: Units) -> float:
    """Return what a clip takes of a decode actor's core, seconds: masks too where they are made there."""
    beside = 1 / speeds.mask if speeds.mask is not None and not units.mask_actors else 0.0
    return 1 / speeds.decode + beside


def capacities(speeds: Speeds, units: Units) -> dict[Stage, float | None]:
    """Return what all units of each stage do together, clips/s; None: not known.

    Masks that are made beside decoding share its cores: both stages then have the capacity of the two.
    """
    decoded = units.decode_actors / decode_seconds(speeds, units)
    mask: float | None = decoded
    if units.mask_actors:
        mask = None if speeds.mask is None else units.mask_actors * speeds.mask
    return {
        "storage": units.read_actors * speeds.storage,
        "decode": decoded,
        "mask": mask,
        "step": units.workers * speeds.step,
    }


def limit(speeds: Speeds, units: Units) -> tuple[Stage, float]:
    """Return the stage that limits a run and the clips/s that it allows.

    Of two that share their cores it is the one that takes more of them.
    """
    alone = {"storage": speeds.storage, "decode": speeds.decode, "mask": speeds.mask, "step": speeds.step}
    known = [(rate, alone[stage] or 0.0, stage) for stage, rate in capacities(speeds, units).items() if rate]
    shared = not units.mask_actors and speeds.mask is None
    rate, _, stage = min(found for found in known if not (shared and found[2] == "mask"))
    return stage, rate


def cores_per_worker(speeds: Speeds, units: Units, margin: float) -> float:
    """Return the cores that decode for one worker so that it never waits, with so much to spare (0.25: a quarter)."""
    return speeds.step * decode_seconds(speeds, units) * (1 + margin)


def balanced(speeds: Speeds, units: Units, margin: float) -> Units:
    """Return the fewest units with which the workers, as many as before, never wait.

    Read actors hold no core, so they never become fewer.
    """
    wanted = units.workers * speeds.step * (1 + margin)
    masks = units.mask_actors
    if masks and speeds.mask is not None:
        masks = _whole(wanted / speeds.mask)
    return replace(
        units,
        read_actors=max(units.read_actors, _whole(wanted / speeds.storage)),
        decode_actors=_whole(units.workers * cores_per_worker(speeds, units, margin)),
        mask_actors=masks,
    )


def _whole(count: float) -> int:
    """Round up, but for what floating point adds."""
    return max(1, ceil(count - 1e-9))


@dataclass(frozen=True, slots=True)
class Reencoding:
    """Re-encoding all videos once, against what decoding them costs in every epoch; CPU core seconds of one video.

    Attributes:
        videos: of the index.
        epochs: of the run.
        once_s: re-encoding it.
        before_s: decoding what an epoch takes of it, as it is.
        after_s: the same of the re-encoded one.
    """

    videos: int
    epochs: float
    once_s: float
    before_s: float
    after_s: float

    @property
    def once_hours(self) -> float:
        """CPU core hours of re-encoding everything."""
        return self.videos * self.once_s / HOUR_S

    @property
    def saved_hours(self) -> float:
        """CPU core hours that all epochs together then take less; below 0: they take more."""
        return self.epochs * self.videos * (self.before_s - self.after_s) / HOUR_S

    @property
    def break_even_epochs(self) -> float | None:
        """Epochs after which as much is saved as it took; None: never."""
        saved = self.before_s - self.after_s
        return self.once_s / saved if saved > 0 else None

    @property
    def pays(self) -> bool:
        """Whether the run is longer than that."""
        return self.break_even_epochs is not None and self.break_even_epochs < self.epochs


@dataclass(frozen=True, slots=True)
class Prices:
    """Of one hour of one GPU and of one CPU core, in any currency; None: not given."""

    gpu_hour: float | None = None
    cpu_hour: float | None = None


def cost(gpu_hours: float, core_hours: float, prices: Prices) -> float | None:
    """Return what hours cost; what has no price costs nothing; None: nothing has one."""
    if prices.gpu_hour is None and prices.cpu_hour is None:
        return None
    return gpu_hours * (prices.gpu_hour or 0.0) + core_hours * (prices.cpu_hour or 0.0)
