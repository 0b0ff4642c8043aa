"""An index of any number of videos, of which few exist: its rows are those of a small index over and over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from system.data.index import GROUP_VIDEOS, SCHEMA


def long_index(index_uri: str, path: str, num_videos: int) -> str:
    """Write an index and return its URI.

    Args:
        index_uri: local, of the small index.
        path: of the long one.
        num_videos: rows of the long one.
    """
    small = pq.read_table(index_uri)
    facts = json.loads(small.schema.metadata[b"tubelet"]) if small.schema.metadata else {}
    rows = small.take([number % small.num_rows for number in range(GROUP_VIDEOS)]).cast(SCHEMA)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for first in range(0, num_videos, GROUP_VIDEOS):
            count = min(GROUP_VIDEOS, num_videos - first)
            ids = pa.array(range(first, first + count), pa.int64())
            writer.write_table(rows.slice(0, count).set_column(0, "video_id", ids), row_group_size=GROUP_VIDEOS)
        facts |= {"version": 1, "num_videos": num_videos, "group_videos": GROUP_VIDEOS}
        facts |= {"fingerprint": f"long-{num_videos}", "num_rejected": 0}
        writer.add_key_value_metadata({"tubelet": json.dumps(facts)})
    return os.fspath(path)
