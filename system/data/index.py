"""The index: one row a video, and the only description of the data that later stages read.

`index.parquet` is sorted by URI and byte offset; that of a run with labels is not (classes.py). A loose file, a member
of a tar shard and a re-encoded shard are all the same thing: a range of bytes of an object. Its row groups are the unit
of the plan's shuffle, so a reader fetches those that its window needs and never the whole.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from system import storage
from system.data.footer import add_directory
from system.data.groups import RowGroups
from system.data.places import PlaceCache, Places, numbers_of
from system.errors import DataError

VERSION = 1
# Rows of a row group. 2,048 keeps the footer of 10 million videos near 5,000 groups, and a group under 1 MB.
GROUP_VIDEOS = 2048
# Row groups that a reader keeps.
CACHED_GROUPS = 24

SCHEMA = pa.schema(
    [
        ("video_id", pa.int64()),
        ("uri", pa.string()),
        ("name", pa.string()),
        ("byte_start", pa.int64()),
        ("num_bytes", pa.int64()),
        ("etag", pa.string()),
        ("label", pa.string()),
        ("codec", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("num_frames", pa.int32()),
        ("fps", pa.float32()),
        ("duration_s", pa.float32()),
        ("key_frames", pa.list_(pa.int32())),
        ("key_timestamps", pa.list_(pa.int64())),
        ("key_positions", pa.list_(pa.int64())),
        ("header", pa.list_(pa.int64())),
        ("layers", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class VideoRow:
    """One row of the index; the fields that a probe fills are those of `probe.VideoFacts`.

    Attributes:
        video_id: the row's number.
        uri: the object that holds the video.
        name: of the video, relative to what was indexed; for people and for the fingerprint.
        byte_start: first byte of the video in the object.
        num_bytes: length of the video, bytes.
        etag: version of the object, "" where storage has none.
        label: its class, if known.
        layers: s where only every s-th frame is a reference (stride-layered shards); 0 for any other video.
    """

    video_id: int
    uri: str
    name: str
    byte_start: int
    num_bytes: int
    etag: str
    label: str | None
    codec: str
    width: int
    height: int
    num_frames: int
    fps: float
    duration_s: float
    key_frames: list[int]
    key_timestamps: list[int]
    key_positions: list[int]
    header: list[int]
    layers: int = 0  # an index that was made before there was such a column has none


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that is no video that can be read, and why."""

    name: str
    code: str
    reason: str


@dataclass(slots=True)
class IndexWriter:
    """Writes rows, in their order, to an index; the object appears when `close` is called.

    Args:
        uri: where the index will lie.
        source: what is indexed, for people.
        labelled: labels are part of the fingerprint, as in a fine-tuning run's own index.
    """

    uri: str
    source: str
    labelled: bool = False
    num_videos: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _digest: Any = field(default_factory=hashlib.sha256)
    _folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)
    _writer: pq.ParquetWriter | None = None

    @property
    def _path(self) -> Path:
        return Path(self._folder.name) / "index.parquet"

    def add(self, row: dict[str, Any]) -> None:
        """Append one video: the fields of `VideoRow` but for its id and duration; `layers` may be left out."""
        line = f"{row['name']}\0{row['byte_start']}\0{row['num_bytes']}\0{row['etag']}"
        self._digest.update((f"{line}\0{row['label']}\n" if self.labelled else f"{line}\n").encode())
        duration = row["num_frames"] / row["fps"] if row["fps"] else 0.0
        self._rows.append({"layers": 0, **row, "video_id": self.num_videos, "duration_s": duration})
        self.num_videos += 1
        if len(self._rows) == GROUP_VIDEOS:
            self._flush()

    def reject(self, rejected: Rejected) -> None:
        """Note a file that is left out."""
        self.rejected.append(rejected)

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, SCHEMA, compression="zstd")
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
            self._writer.write_table(table, row_group_size=GROUP_VIDEOS)
            self._rows.clear()

    def close(self) -> None:
        """Write what is left, and put the index and the list of rejected files in place.

        Raises:
            DataError: if there is no video at all.
        """
        if not self.num_videos:
            first = "".join(f"; {bad.name}: {bad.reason}" for bad in self.rejected[:3])
            raise DataError(f"{self.source}: none of {len(self.rejected)} files is a video that can be read{first}")
        self._flush()
        assert self._writer is not None
        described = note(self.source, self.num_videos, self._digest.hexdigest(), len(self.rejected))
        self._writer.add_key_value_metadata(described)
        self._writer.close()
        add_directory(self._path)
        if self.rejected:
            lines = (json.dumps({"name": bad.name, "code": bad.code, "reason": bad.reason}) for bad in self.rejected)
            storage.write(rejected_uri(self.uri), ("\n".join(lines) + "\n").encode())
        else:
            storage.delete([rejected_uri(self.uri)])  # that of an index that lay here before
        storage.upload(self._path, self.uri)
        self._folder.cleanup()


def note(source: str, num_videos: int, fingerprint: str, num_rejected: int = 0) -> dict[str, str]:
    """Return what an index says of itself, as Parquet keeps it."""
    facts = {
        "version": VERSION,
        "source": source,
        "num_videos": num_videos,
        "group_videos": GROUP_VIDEOS,
        "fingerprint": fingerprint,
        "num_rejected": num_rejected,
    }
    return {"tubelet": json.dumps(facts)}


def rejected_uri(index_uri: str) -> str:
    """Return where the list of an index's rejected files lies."""
    return index_uri.removesuffix(".parquet") + ".rejected.jsonl"


def read_rejected(index_uri: str) -> list[Rejected]:
    """Return the files that an index leaves out."""
    try:
        lines = storage.read(rejected_uri(index_uri)).decode().splitlines()
    except storage.MissingError:
        return []
    return [Rejected(**json.loads(line)) for line in lines]


class Index:
    """Reads an index a row group at a time; any number of threads may share one.

    Args:
        uri: of the index.parquet.

    Attributes:
        source: what was indexed, as it was named then.

    Raises:
        DataError: if there is no index there, or one of another version.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            self._reader = RowGroups(uri)
            facts = json.loads(self._reader.notes[b"tubelet"])
        except storage.MissingError as error:
            raise DataError(f"{uri}: there is no index; make one with `python -m jobs.index`") from error
        except (pa.ArrowInvalid, KeyError, TypeError) as error:
            raise DataError(f"{uri} is no index of videos; make one with `python -m jobs.index`") from error
        if facts["version"] != VERSION:
            raise DataError(f"{uri} is an index of version {facts['version']}, this is {VERSION}; make it again")
        self.source: str = facts["source"]
        self.num_videos: int = facts["num_videos"]
        self.group_videos: int = facts["group_videos"]
        self.fingerprint: str = facts["fingerprint"]
        self.num_rejected: int = facts["num_rejected"]
        self._groups: OrderedDict[int, dict[str, pa.Array]] = OrderedDict()
        self._places = PlaceCache(self._reader, self.group_videos)
        self._lock = threading.Lock()

    def _group(self, number: int) -> dict[str, pa.Array]:
        """Return a row group's columns: a tenth of what its rows take as Python objects."""
        with self._lock:
            if number in self._groups:
                self._groups.move_to_end(number)
            else:
                while len(self._groups) >= CACHED_GROUPS:
                    self._groups.popitem(last=False)
                table = self._reader.read([number], self._reader.schema.names).combine_chunks()
                self._groups[number] = {name: table.column(name).chunk(0) for name in table.column_names}
            return self._groups[number]

    def row(self, video_id: int) -> VideoRow:
        """Return one video's row."""
        place = video_id % self.group_videos
        columns = self._group(video_id // self.group_videos)
        return VideoRow(**{name: column[place].as_py() for name, column in columns.items()})

    def places(self, video_ids: NDArray[np.int64]) -> Places:
        """Return where videos lie: of the columns of their groups, three are read."""
        with self._lock:
            return self._places.of(video_ids)

    def numbers(self, name: str) -> NDArray[np.int64]:
        """Return a column of whole numbers of all videos: (V,) int64; zeros where an older index has no such column."""
        if name not in self._reader.schema.names:
            return np.zeros(self.num_videos, np.int64)
        with self._lock:
            column = self._reader.column(name)
        return numbers_of(column.cast(pa.int64()))

    def texts(self, name: str) -> list[str | None]:
        """Return a column of texts of all videos: one column is read, none of the rows."""
        with self._lock:
            column = self._reader.column(name)
        texts: list[str | None] = column.to_pylist()
        return texts

    def names(self, video_ids: Sequence[int]) -> dict[int, str]:
        """Return the names of any number of videos: one column is read, none of the rows."""
        with self._lock:
            column = self._reader.column("name")
        return dict(zip(video_ids, column.take(pa.array(video_ids, pa.int64())).to_pylist(), strict=True))

    def rows(self, video_ids: NDArray[np.int64]) -> Iterator[VideoRow]:
        """Return rows in any order: all groups are held meanwhile, as columns, some hundred bytes a video."""
        numbers = range(-(-self.num_videos // self.group_videos))
        with self._lock:
            table = pa.concat_tables([self._reader.read([each], self._reader.schema.names) for each in numbers])
        table = table.combine_chunks()
        for start in range(0, len(video_ids), self.group_videos):
            part = table.take(pa.array(video_ids[start : start + self.group_videos]))
            yield from (VideoRow(**values) for values in part.to_pylist())

    def __iter__(self) -> Iterator[VideoRow]:
        for number in range(-(-self.num_videos // self.group_videos)):
            with self._lock:
                table = self._reader.read([number], self._reader.schema.names)
            yield from (VideoRow(**values) for values in table.to_pylist())
