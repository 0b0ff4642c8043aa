"""Parquet's footer, a row group at a time.

A Parquet file ends with its metadata, as one record that a reader takes whole: for 10 million videos 10 MB, which
become 90 MB in every process. Ours has a directory before that record: where in it each row group is described. With
it a reader takes the description of a group that it wants and leaves the others. To every other reader the directory
is bytes that nothing points to.

    row groups | directory: uint32 places | CRC-32, count, magic | metadata | its length, PAR1

The metadata is a record of Thrift's compact protocol, whose fourth field is the list of row groups.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

MAGIC = b"TUBELET1"
_TRAILER = struct.Struct("<II8s")
_END = struct.Struct("<I4s")
_PARQUET = b"PAR1"
# Of Thrift's compact protocol: kinds of values, and the field of the metadata that lists the row groups.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_SIZES = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8}
_ROW_GROUPS = 4

File = IO[bytes] | io.RawIOBase


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and the place behind it."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def _elements(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the number and the kind of a list's elements, and the place of the first one."""
    count, kind = data[at] >> 4, data[at] & 0x0F
    if count < 15:
        return count, kind, at + 1
    count, at = _varint(data, at + 1)
    return count, kind, at


def _behind(data: bytes, at: int, kind: int, *, element: bool = False) -> int:
    """Return the place behind a value; a true or false is a byte in a list, and none in a record."""
    if kind in (_LIST, _SET):
        count, of, at = _elements(data, at)
        for _ in range(count):
            at = _behind(data, at, of, element=True)
        return at
    if kind == _STRUCT:
        return _behind_record(data, at)
    if kind == _MAP:
        raise ValueError("Parquet's metadata has no maps")
    if kind in _SIZES:
        return at + _SIZES[kind] if kind not in (_TRUE, _FALSE) or element else at
    number, at = _varint(data, at)
    return at + number if kind == _BINARY else at


def _behind_record(data: bytes, at: int) -> int:
    while header := data[at]:
        at += 1
        if not header >> 4:
            at = _varint(data, at)[1]
        at = _behind(data, at, header & 0x0F)
    return at + 1


def places(metadata: bytes) -> NDArray[np.uint32]:
    """Return where the list of row groups stands in a metadata record, where each group does, and the end of the last.

    Raises:
        ValueError: if there is no such list.
    """
    at, field = 0, 0
    while header := metadata[at]:
        at += 1
        if header >> 4:
            field += header >> 4
        else:
            number, at = _varint(metadata, at)
            field = (number >> 1) ^ -(number & 1)
        if field == _ROW_GROUPS:
            found = [at]
            count, kind, at = _elements(metadata, at)
            for _ in range(count):
                found.append(at)
                at = _behind(metadata, at, kind)
            return np.array([*found, at], "<u4")
        at = _behind(metadata, at, header & 0x0F)
    raise ValueError("no row groups in this metadata")


def add_directory(path: Path) -> None:
    """Put a directory before the metadata of a Parquet file."""
    with path.open("r+b") as file:
        file.seek(-_END.size, 2)
        length, _ = _END.unpack(file.read())
        begin = file.seek(-_END.size - length, 2)
        end = file.read()
        directory = places(end[:length]).tobytes()
        file.seek(begin)
        file.write(directory + _TRAILER.pack(zlib.crc32(directory), len(directory), MAGIC) + end)


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the metadata of a file stands, and its row groups in it.

    Attributes:
        begin: of the metadata in the file.
        length: of the metadata, bytes.
        places: as the function returns.
    """

    begin: int
    length: int
    places: NDArray[np.uint32]

    def only(self, file: File, numbers: Sequence[int] = ()) -> bytes:
        """Return a Parquet file of no rows whose metadata has some row groups of this one's, fewer than 128."""
        count = len(numbers)
        begin = bytes([count << 4 | _STRUCT] if count < 15 else [15 << 4 | _STRUCT, count])
        parts = [(int(self.places[number + 1]), int(self.places[number + 2])) for number in numbers]
        groups = b"".join(self._part(file, *part) for part in parts)
        before, behind = self._part(file, 0, int(self.places[0])), self._part(file, int(self.places[-1]), self.length)
        metadata = before + begin + groups + behind
        return _PARQUET + metadata + _END.pack(len(metadata), _PARQUET)

    def _part(self, file: File, start: int, stop: int) -> bytes:
        file.seek(self.begin + start)
        return file.read(stop - start)


def directory_of(file: File) -> Directory | None:
    """Return the directory of a Parquet file; None if it has none, or is no such file."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    if len(end) < _END.size or not end.endswith(_PARQUET):
        return None
    length = _END.unpack(end)[0]
    begin = size - _END.size - length
    if begin < _TRAILER.size:
        return None
    file.seek(begin - _TRAILER.size)
    checksum, num_bytes, magic = _TRAILER.unpack(file.read(_TRAILER.size))
    if magic != MAGIC or num_bytes > begin - _TRAILER.size:
        return None
    file.seek(begin - _TRAILER.size - num_bytes)
    directory = file.read(num_bytes)
    if zlib.crc32(directory) != checksum:
        return None
    return Directory(begin, length, np.frombuffer(directory, "<u4"))
