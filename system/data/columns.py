"""The columns of the stream: what each stage needs and gives, checked when a chain of stages is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from system.core.clip import TokenGrid

Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a stage adds: dtype, and the shape of one row's value."""

    dtype: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StageSpec:
    """What a stage needs and what its rows are afterwards.

    Attributes:
        name: for messages.
        takes: columns that must be there.
        gives: all columns afterwards.
    """

    name: str
    takes: frozenset[str]
    gives: Mapping[str, Column]


def check_chain(stages: Sequence[StageSpec]) -> None:
    """Refuse a chain in which a stage needs a column that nothing before it gives.

    Raises:
        ValueError: names the stage and the columns.
    """
    have: Mapping[str, Column] = {"block": Column("int64")}
    for stage in stages:
        missing = stage.takes - set(have)
        if missing:
            raise ValueError(f"stage {stage.name} needs the columns {sorted(missing)}, there are {sorted(have)}")
        have = stage.gives


READ_COLUMNS = {
    "step": Column("int64"),
    "slot": Column("int64"),
    "attempt": Column("int64"),
    "notes": Column("object"),
    "starts": Column("object"),
    "bytes": Column("object"),
}


def clip_columns(grid: TokenGrid, num_extra: int) -> dict[str, Column]:
    """Return the columns of a clip's row before its masks are made; `num_extra` frames lie beyond the sampled ones.

    `pixels` is the CRC-32 of its frames as the model sees them, then of its extra ones; 0 where no video stands.
    """
    columns = {
        "step": Column("int64"),
        "slot": Column("int64"),
        "view": Column("int64"),
        "video_id": Column("int64"),
        "start": Column("int64"),
        "attempt": Column("int64"),
        "weight": Column("float32"),
        "notes": Column("object"),
        "pixels": Column("uint32"),
        "frames": Column("uint8", (grid.num_frames, grid.height, grid.width, 3)),
    }
    extra = Column("uint8", (num_extra, grid.height, grid.width, 3))
    return {**columns, "extra": extra} if num_extra else columns


# Of a labelled clip: the number of its class, that of the clip that it is mixed with, and its own part in the mixture.
LABELS = {"label": Column("int64"), "other": Column("int64"), "share": Column("float32")}


def label_columns(num_draws: int) -> dict[str, Column]:
    """Return the columns that a labelled clip has besides; `draws` are uniform numbers for the forward pass."""
    return {**LABELS, **({"draws": Column("float32", (num_draws,))} if num_draws else {})}


def read_spec() -> StageSpec:
    """Describe the stage that fetches bytes: a block's number in, its slots out."""
    return StageSpec("read", frozenset({"block"}), READ_COLUMNS)


def decode_spec(grid: TokenGrid, num_extra: int, masks: Mapping[str, Column]) -> StageSpec:
    """Describe the stage that decodes: slots in, clips out, with their labels, and masks that are made beside it."""
    return StageSpec("decode", frozenset(READ_COLUMNS), {**clip_columns(grid, num_extra), **masks})


def mask_spec(grid: TokenGrid, num_extra: int, masks: Mapping[str, Column]) -> StageSpec:
    """Describe the stage that masks on a device: clips in, the same clips with masks out."""
    columns = clip_columns(grid, num_extra)
    return StageSpec("mask", frozenset(columns), {**columns, **masks})


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """Return a column of Python objects."""
    out = np.empty(len(values), object)
    out[:] = values
    return out
