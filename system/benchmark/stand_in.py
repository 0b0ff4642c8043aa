"""Stand-ins for the stages of a stream, so that what lies between them can be weighed. No Ray, no codec.

They give the columns that the real stages give, of the same sizes; what is in the frames means nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from system.core.seeds import Purpose, generator
from system.data.assemble import Makers, StreamSpec, clip_spec, made_columns
from system.data.columns import Batch, decode_spec, objects


class StandInRead:
    """Block numbers to slots with one byte each."""

    def __init__(self, spec: StreamSpec) -> None:
        self._layout = spec.layout

    def __call__(self, batch: Batch) -> Batch:
        """One block number in, its slots out."""
        (number,) = batch["block"]
        block = self._layout.block(int(number))
        count, padding = block.num_slots, [-1] * block.padding
        return {
            "step": np.full(count, block.step),
            "slot": np.array([*range(block.start, block.stop), *padding], np.int64),
            "attempt": np.zeros(count, np.int64),
            "notes": objects([""] * count),
            "starts": objects([b""] * count),
            "bytes": objects([b"0"] * count),
        }


@dataclass(frozen=True, slots=True)
class Pace:
    """How long stand-in decoding takes.

    Attributes:
        clip_s: of a clip, seconds.
        slow_share: of the clips that take longer, 0 to 1.
        slow_times: how many times longer.
    """

    clip_s: float = 0.0
    slow_share: float = 0.0
    slow_times: float = 1.0

    def block_s(self, step: int, first_slot: int, clips: int) -> float:
        """Return how long a block takes, seconds: a function of its slots alone."""
        if not self.slow_share:
            return clips * self.clip_s
        draws = generator(0, Purpose.START, step, max(first_slot, 0)).random(clips)
        slow = int((draws < self.slow_share).sum())
        return (clips + slow * (self.slow_times - 1)) * self.clip_s


class StandInDecode:
    """Slots to clips whose frames lie ready: nothing is decoded."""

    def __init__(self, spec: StreamSpec, pace: Pace) -> None:
        recipe, shape = spec.recipe, clip_spec(spec.recipe)
        columns = decode_spec(shape.grid, len(shape.extra), made_columns(recipe)).gives
        clips = spec.layout.clips_per_block
        self._pace, self._views = pace, spec.layout.views
        self._ready = {name: np.zeros((clips, *column.shape), column.dtype) for name, column in columns.items()}
        self._ready["notes"][:] = ""
        self._ready["weight"][:] = 1
        self._ready["view"][:] = np.arange(clips) % self._views
        self._ready["frames"][:] = (np.arange(shape.grid.width) % 256).astype(np.uint8)[:, None]
        self._ready["visible"][:, : shape.grid.tokens // 2] = True

    def __call__(self, batch: Batch) -> Batch:
        """Slots in, their views out, when the time is up."""
        slots = batch["slot"].repeat(self._views)
        time.sleep(self._pace.block_s(int(batch["step"][0]), int(slots[0]), len(slots)))
        return {**self._ready, "step": batch["step"].repeat(self._views), "slot": slots}


@dataclass(frozen=True, slots=True)
class MakeDecode:
    """Makes stand-in decoding at a pace, where an actor of it lives."""

    pace: Pace

    def __call__(self, spec: StreamSpec) -> StandInDecode:
        """Return the stage."""
        return StandInDecode(spec, self.pace)


@dataclass(frozen=True, slots=True)
class CountDecode:
    """Makes a decode stage that writes a byte to a file for each block that it has made.

    Attributes:
        make: of the stage.
        path: of the file.
    """

    make: Callable[[StreamSpec], Callable[[Batch], Batch]]
    path: str

    def __call__(self, spec: StreamSpec) -> Callable[[Batch], Batch]:
        """Return the stage."""
        stage = self.make(spec)

        def counted(batch: Batch) -> Batch:
            clips = stage(batch)
            with open(self.path, "ab", buffering=0) as file:  # noqa: PTH123  appends of all actors go to its end
                file.write(b".")
            return clips

        return counted


def stand_ins(pace: Pace | None = None) -> Makers:
    """Return what makes stand-ins for both stages."""
    return Makers(StandInRead, MakeDecode(pace or Pace()))
