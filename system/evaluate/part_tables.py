"""The tables that parts of features are (feature_parts.py): made of rows, their columns of lists read back, written.

n videos, V views of each, F' features of a view.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from system.data.index import VideoRow
from system.evaluate.frozen import Extraction


def part_table(
    rows: Sequence[Mapping[str, Any]], videos: Sequence[VideoRow], labels: Sequence[str | None], work: Extraction
) -> pa.Table:
    """Make the table of a part: one row a video, whatever became of it.

    Args:
        rows: of each video what `Featurizer` gives.
        videos: their rows of the index.
        labels: of each.
        work: what the rows are.
    """
    seen = np.stack([row["seen"] for row in rows])
    features = np.stack([row["features"] for row in rows])
    views = seen.sum(1)
    of_video, of_view = work.names
    columns: dict[str, Any] = {
        "video_id": pa.array([video.video_id for video in videos], pa.int64()),
        "uri": pa.array([video.uri for video in videos], pa.string()),
        "name": pa.array([video.name for video in videos], pa.string()),
        "label": pa.array(labels, pa.string()),
        "views": pa.array(views, pa.int32()),
        of_video: _lists(work.together(features, seen).astype(np.float32), views == 0),
        "error": pa.array([row["error"] or None for row in rows], pa.string()),
    }
    if work.keep_views:
        columns["seen"] = _lists(seen)
        columns[of_view] = _lists(features.reshape(len(rows), -1))
        if work.tokens_side:
            columns["tokens"] = _lists(np.stack([row["tokens"] for row in rows]).reshape(len(rows), -1))
    return pa.table(columns)


def _lists(values: NDArray[Any], absent: NDArray[np.bool_] | None = None) -> pa.FixedSizeListArray:
    """Return a column of lists of one length: (n, m)."""
    mask = None if absent is None else pa.array(absent)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1], mask=mask)


def flat(table: pa.Table, name: str) -> NDArray[Any]:
    """Return the numbers of a column of lists, one list after the other: (rows x length of a list,)."""
    return np.asarray(table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False))


def parquet(table: pa.Table) -> bytes:
    """Return a table as a Parquet file's bytes."""
    told = io.BytesIO()
    pq.write_table(table, told, compression="zstd")
    return told.getvalue()
