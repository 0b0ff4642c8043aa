"""A stored object as a seekable file, for libraries that read files: Parquet, tar."""

from __future__ import annotations

from system.seekable import SeekableFile
from system.storage import read


class RangeFile(SeekableFile):
    """A read-only file over a byte range of an object that fetches what is read, in pieces of `chunk` bytes.

    Args:
        uri: the object.
        start: first byte of the range.
        length: bytes of the range.
        chunk: bytes fetched at once.
    """

    def __init__(self, uri: str, start: int, length: int, chunk: int = 1 << 18) -> None:
        super().__init__(length)
        self._uri, self._start, self._chunk = uri, start, chunk
        self._pieces: dict[int, bytes] = {}

    def _piece(self, number: int) -> bytes:
        if number not in self._pieces:
            if len(self._pieces) >= 64:  # 16 MiB: forget the oldest piece
                self._pieces.pop(next(iter(self._pieces)))
            first = number * self._chunk
            last = min(first + self._chunk, self._size)
            self._pieces[number] = read(self._uri, self._start + first, self._start + last)
        return self._pieces[number]

    def _between(self, start: int, stop: int) -> bytes:
        if stop - start > 2 * self._chunk:  # one request, not one a piece
            return read(self._uri, self._start + start, self._start + stop)
        first, last = start // self._chunk, (stop - 1) // self._chunk
        data = b"".join(self._piece(number) for number in range(first, last + 1))
        skip = start - first * self._chunk
        return data[skip : skip + stop - start]
