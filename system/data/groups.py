"""The row groups of a Parquet object: any of them, any columns, and of the rest neither rows nor metadata."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from system import storage
from system.data.footer import Directory, directory_of
from system.errors import DataError
from system.range_file import RangeFile
from system.seekable import SeekableFile

# Row groups whose description is taken in one piece.
MOST = 64


class _Fetched(SeekableFile):
    """A file of which some ranges are at hand, and nothing else is read."""

    def __init__(self, size: int, ranges: Sequence[tuple[int, int]], parts: Sequence[bytes]) -> None:
        super().__init__(size)
        self._starts, self._parts = [start for start, _ in ranges], parts

    def _between(self, start: int, stop: int) -> bytes:
        number = bisect_right(self._starts, start) - 1
        begin = self._starts[number]
        return self._parts[number][start - begin : stop - begin]


class RowGroups:
    """Reads row groups, one thread at a time.

    Args:
        uri: of the object.

    Raises:
        MissingError: if there is no such object.
        pa.ArrowInvalid: if it is no Parquet.
        DataError: here and when it is read, if columns are of types whose values run code of a library.
    """

    def __init__(self, uri: str) -> None:
        self._uri, self._size = uri, storage.size(uri)
        self._file = RangeFile(uri, 0, self._size)
        self._directory = directory_of(self._file)
        # A file without a directory is opened as any Parquet file is, all of its metadata at once.
        self._whole = pq.ParquetFile(self._file) if self._directory is None else None
        opened = self._whole or pq.ParquetFile(pa.BufferReader(self._described(())))
        self.schema: pa.Schema = self._plain(opened.schema_arrow)
        self.num_rows: int = opened.metadata.num_rows
        self.notes: dict[bytes, bytes] = self.schema.metadata or opened.metadata.metadata
        leaves = [opened.schema.column(number).path.split(".")[0] for number in range(len(opened.schema))]
        self._leaves = {name: [number for number, of in enumerate(leaves) if of == name] for name in self.schema.names}

    def _described(self, numbers: Sequence[int]) -> bytes:
        directory: Directory | None = self._directory
        assert directory is not None
        return directory.only(self._file, numbers)

    def _plain(self, schema: pa.Schema) -> pa.Schema:
        """Refuse types that libraries register: Ray's type for Python objects unpickles them when they are looked at.

        Each opening is checked, since what the directory describes need not be what stands in the file.
        """
        wrong = [each.name for each in schema if _is_registered(each.type)]
        if wrong:
            raise DataError(
                f"{self._uri}: the columns {', '.join(wrong)} are of types that may run code when they are read; an"
                " index has numbers and texts alone: make it again with `python -m jobs.index`"
            )
        return schema

    def read(self, numbers: Sequence[int], names: Sequence[str], encoded: Sequence[str] = ()) -> pa.Table:
        """Return columns of up to `MOST` row groups, in the order given.

        Of each group one piece is fetched: its columns and what lies between them; all pieces side by side.

        Args:
            numbers: of the groups.
            names: of the columns.
            encoded: those of them that may come as dictionaries, as they are stored.
        """
        columns = list(names)
        if self._whole is not None:  # and its schema is checked
            return self._whole.read_row_groups(list(numbers), columns, use_threads=False)
        metadata = pq.read_metadata(pa.BufferReader(self._described(numbers)))
        leaves = [leaf for name in names for leaf in self._leaves[name]]
        wanted = [_range(metadata.row_group(place), leaves) for place in range(len(numbers))]
        ranges = storage.merge_ranges(wanted, gap=0)
        fetched = _Fetched(self._size, ranges, self._fetch(ranges))
        opened = pq.ParquetFile(fetched, metadata=metadata, read_dictionary=list(encoded), pre_buffer=False)
        self._plain(opened.schema_arrow)
        return opened.read_row_groups(list(range(len(numbers))), columns, use_threads=False)

    def _fetch(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        tasks: list[Callable[[], bytes]] = [partial(storage.read, self._uri, *each) for each in ranges]
        # Threads cost more than a read of a local file takes.
        return storage.in_parallel(tasks) if storage.is_s3(self._uri) else [task() for task in tasks]

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column of all row groups."""
        whole = self._whole or pq.ParquetFile(self._file)
        self._plain(whole.schema_arrow)
        return whole.read([name]).column(0)


def _is_registered(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return True
    inner = [kind.value_type] if pa.types.is_dictionary(kind) else [kind.field(i).type for i in range(kind.num_fields)]
    return any(_is_registered(each) for each in inner)


def _range(group: pq.RowGroupMetaData, leaves: Sequence[int]) -> tuple[int, int]:
    """Return the byte range in which columns of a row group lie."""
    chunks = [group.column(leaf) for leaf in (min(leaves), max(leaves))]
    starts = [chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset for chunk in chunks]
    return starts[0], starts[1] + chunks[1].total_compressed_size
