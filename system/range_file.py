"""A stored object as a seekable file, for libraries that read files: Parquet, tar."""

from __future__ import annotations

import io
from typing import Any

from system.storage import read


class RangeFile(io.RawIOBase):
    """A read-only file over a byte range of an object that fetches what is read, in pieces of `chunk` bytes.

    Args:
        uri: the object.
        start: first byte of the range.
        length: bytes of the range.
        chunk: bytes fetched at once.
    """

    def __init__(self, uri: str, start: int, length: int, chunk: int = 1 << 18) -> None:
        super().__init__()
        self._uri, self._start, self._length, self._chunk = uri, start, length, chunk
        self._position = 0
        self._pieces: dict[int, bytes] = {}

    def readable(self) -> bool:
        """Files of this kind are read."""
        return True

    def seekable(self) -> bool:
        """Files of this kind are sought in."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def _piece(self, number: int) -> bytes:
        if number not in self._pieces:
            if len(self._pieces) >= 64:  # 16 MiB: forget the oldest piece
                self._pieces.pop(next(iter(self._pieces)))
            first = number * self._chunk
            last = min(first + self._chunk, self._length)
            self._pieces[number] = read(self._uri, self._start + first, self._start + last)
        return self._pieces[number]

    def read(self, amount: int | None = -1) -> bytes:
        """Return up to `amount` bytes from the position on."""
        wanted = self._length if amount is None or amount < 0 else amount
        stop = min(self._position + wanted, self._length)
        if stop <= self._position:
            return b""
        first, last = self._position // self._chunk, (stop - 1) // self._chunk
        data = b"".join(self._piece(number) for number in range(first, last + 1))
        skip = self._position - first * self._chunk
        out = data[skip : skip + stop - self._position]
        self._position = stop
        return out

    def readall(self) -> bytes:
        """Return everything from the position on."""
        return self.read(-1)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
