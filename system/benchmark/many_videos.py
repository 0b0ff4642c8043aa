"""An index of any number of videos that can all be read: its rows are those of a small index over and over.

`large_index.py` writes one whose videos are all different, of which none exists.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from system.data.footer import add_directory
from system.data.index import GROUP_VIDEOS, SCHEMA, note


def long_index(index_uri: str, path: str, num_videos: int) -> str:
    """Write an index and return its URI.

    Args:
        index_uri: local, of the small index.
        path: of the long one.
        num_videos: rows of the long one.
    """
    small = pq.read_table(index_uri)
    rows = small.take([number % small.num_rows for number in range(GROUP_VIDEOS)]).select(SCHEMA.names).cast(SCHEMA)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for first in range(0, num_videos, GROUP_VIDEOS):
            count = min(GROUP_VIDEOS, num_videos - first)
            ids = pa.array(range(first, first + count), pa.int64())
            table = rows.slice(0, count).set_column(SCHEMA.get_field_index("video_id"), "video_id", ids)
            writer.write_table(table, row_group_size=GROUP_VIDEOS)
        writer.add_key_value_metadata(note("benchmark", num_videos, "0" * 64))
    add_directory(Path(path))
    return path
