"""What seekable, read-only files have in common whose bytes come from somewhere else."""

from __future__ import annotations

import io
from typing import Any


class SeekableFile(io.RawIOBase):
    """A seekable, read-only file; how bytes come is its `_between`.

    Args:
        size: bytes of the file.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._position = 0

    def _between(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop); they lie in the file, and there is at least one."""
        raise io.UnsupportedOperation("a file of no bytes")

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
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def read(self, amount: int | None = -1) -> bytes:
        """Return up to `amount` bytes from the position on."""
        start = self._position
        stop = self._size if amount is None or amount < 0 else min(self._size, start + amount)
        if stop <= start:
            return b""
        data = self._between(start, stop)
        self._position = stop
        return data

    def readall(self) -> bytes:
        """Return everything from the position on."""
        return self.read(-1)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
