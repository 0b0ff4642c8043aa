"""Indexes of as many videos as are wanted: of videos that do not exist, or of a few over and over.

Plans are measured on the first kind, streams, which read the videos, on the second.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from system.data.footer import add_directory
from system.data.index import GROUP_VIDEOS, SCHEMA, note

# Videos of one shard, and the bytes from one to the next: 256 px clips of ten seconds in tar files of a gigabyte.
SHARD_VIDEOS = 1000
VIDEO_BYTES = 1_000_000
KEY_FRAMES = 4
# Rows that are written at once; what does not tell videos apart repeats after so many.
BATCH = 16 * GROUP_VIDEOS


def write_index(path: Path, num_videos: int) -> None:
    """Write an index as `IndexWriter` does, some microseconds a row; its fingerprint is none."""
    constant = _constant_columns()

    def rows(first: int) -> pa.Table:
        columns = {**constant, **_places(first)}
        return pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA)

    _write(path, num_videos, rows)


def write_repeated(path: Path, num_videos: int, index_uri: str) -> None:
    """Write an index whose rows are those of a small local one over and over, so that all can be read."""
    small = pq.read_table(index_uri)
    again = small.take([number % small.num_rows for number in range(GROUP_VIDEOS)]).select(SCHEMA.names).cast(SCHEMA)
    batch = pa.concat_tables([again] * (BATCH // GROUP_VIDEOS))

    def rows(first: int) -> pa.Table:
        ids = pa.array(np.arange(first, first + BATCH))
        return batch.set_column(SCHEMA.get_field_index("video_id"), "video_id", ids)

    _write(path, num_videos, rows)


def _write(path: Path, num_videos: int, rows: Callable[[int], pa.Table]) -> None:
    """Write an index of tables of `BATCH` rows; `rows` is given the first row's number."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for first in range(0, num_videos, BATCH):
            writer.write_table(rows(first).slice(0, num_videos - first), row_group_size=GROUP_VIDEOS)
        writer.add_key_value_metadata(note("benchmark", num_videos, "0" * 64))
    add_directory(path)


def _places(first: int) -> dict[str, pa.Array]:
    """Return the columns that tell the videos of a batch apart."""
    ids = np.arange(first, first + BATCH)
    shards = ids // SHARD_VIDEOS
    uris = pa.array([f"s3://videos/k10m/shard-{number:06d}.tar" for number in range(shards[0], shards[-1] + 1)])
    places = pa.DictionaryArray.from_arrays(pa.array(shards - shards[0]), uris)
    return {
        "video_id": pa.array(ids),
        "uri": places.cast(pa.string()),
        "byte_start": pa.array(ids % SHARD_VIDEOS * VIDEO_BYTES),
    }


def _constant_columns() -> dict[str, pa.Array]:
    """Return the other columns of a batch: the numbers of short clips at 30 frames a second."""
    draws = np.random.default_rng(0)
    num_bytes = draws.integers(VIDEO_BYTES // 10, VIDEO_BYTES, BATCH)
    frames = draws.integers(120, 301, BATCH).astype(np.int32)
    keys = np.tile(np.arange(KEY_FRAMES) * 60, (BATCH, 1))
    positions = np.sort(draws.integers(0, VIDEO_BYTES // 10, (BATCH, KEY_FRAMES)), 1)
    ends = np.stack([np.zeros(BATCH), np.full(BATCH, 4096), num_bytes - 4096, num_bytes], 1)
    labels = pa.array([f"label {number}" for number in range(400)])
    return {
        "num_bytes": pa.array(num_bytes),
        "name": pa.array([f"{number:011x}.mp4" for number in draws.integers(0, 16**11, BATCH).tolist()]),
        "etag": pa.array(["7f1c29a0-3b9aca00"] * BATCH),
        "label": labels.take(pa.array(draws.integers(0, 400, BATCH))),
        "codec": pa.array(["h264"] * BATCH),
        "width": pa.array(np.full(BATCH, 340, np.int32)),
        "height": pa.array(np.full(BATCH, 256, np.int32)),
        "num_frames": pa.array(frames),
        "fps": pa.array(np.full(BATCH, 30, np.float32)),
        "duration_s": pa.array((frames / 30).astype(np.float32)),
        "key_frames": _lists(keys.astype(np.int32)),
        "key_timestamps": _lists(keys.astype(np.int64) * 512),
        "key_positions": _lists(positions.astype(np.int64)),
        "header": _lists(ends.astype(np.int64)),
        "layers": pa.array(np.full(BATCH, 4, np.int32)),
    }


def _lists(values: NDArray[np.int32] | NDArray[np.int64]) -> pa.ListArray:
    """Return the rows of a matrix as lists."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))
