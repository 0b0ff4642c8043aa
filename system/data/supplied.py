"""A file whose bytes were handed over, and which asks for the ones that were not.

A decode child has no credentials, and no way to storage but its parent, which supplies the ranges that a clip should
need and answers when others are read after all.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence

from system.seekable import SeekableFile

# Missing bytes are asked for in pieces of this size, and twice the last piece where reading goes on behind it.
PIECE_BYTES = 1 << 18
LARGEST_PIECE_BYTES = 8 << 20
# Pieces that were asked for are kept up to this sum, the last ones: a video may be larger than a child's memory.
KEPT_BYTES = 32 << 20

Fetch = Callable[[int, int], bytes]


class SuppliedFile(SeekableFile):
    """A seekable, read-only file.

    Args:
        size: of the whole file, bytes.
        segments: (start, bytes) that are at hand.
        fetch: returns the bytes [start, stop) of what is not at hand.
    """

    def __init__(self, size: int, segments: Sequence[tuple[int, bytes]], fetch: Fetch) -> None:
        super().__init__(size)
        self._fetch = fetch
        self._segments = sorted(segment for segment in segments if segment[1])
        self._starts = [start for start, _ in self._segments]
        self._asked: deque[int] = deque()  # starts of the pieces that were asked for, oldest first
        self._kept_bytes = 0
        self._ahead = PIECE_BYTES
        self._behind = size  # where the last piece ended; nothing is read behind the end
        self._read: list[tuple[int, int]] = []

    def forget_touched(self) -> None:
        """Go back to the start as if nothing had been read."""
        self._position = 0
        self._read.clear()

    def touched(self) -> list[tuple[int, int]]:
        """Return the half-open ranges that were read, joined where they meet."""
        joined: list[tuple[int, int]] = []
        for start, stop in sorted(self._read):
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
            else:
                joined.append((start, stop))
        return joined

    def _at_hand(self, position: int) -> tuple[int, bytes] | None:
        index = bisect_right(self._starts, position) - 1
        if index >= 0 and position < self._starts[index] + len(self._segments[index][1]):
            return self._segments[index]
        return None

    def _ask(self, position: int) -> tuple[int, bytes]:
        """Fetch the piece around a position, up to what is at hand after it."""
        sequential = 0 <= position - self._behind < PIECE_BYTES  # what is skipped may be another stream's
        self._ahead = min(2 * self._ahead, LARGEST_PIECE_BYTES) if sequential else PIECE_BYTES
        first = position if sequential else position // PIECE_BYTES * PIECE_BYTES
        index = bisect_right(self._starts, position)
        before = self._segments[index - 1] if index else (0, b"")
        start = max(first, before[0] + len(before[1]))
        stop = min(first + self._ahead, self._size, *self._starts[index : index + 1])
        piece = (start, self._fetch(start, stop))
        self._segments.insert(index, piece)
        self._starts.insert(index, start)
        self._behind = stop
        self._asked.append(start)
        self._kept_bytes += stop - start
        self._drop_oldest()
        return piece

    def _drop_oldest(self) -> None:
        while self._kept_bytes > KEPT_BYTES and len(self._asked) > 1:
            index = bisect_left(self._starts, self._asked.popleft())
            self._kept_bytes -= len(self._segments[index][1])
            del self._segments[index], self._starts[index]

    def _between(self, start: int, stop: int) -> bytes:
        self._read.append((start, stop))
        parts: list[bytes] = []
        while start < stop:
            first, data = self._at_hand(start) or self._ask(start)
            parts.append(data[start - first : stop - first])
            start += len(parts[-1])
        return b"".join(parts)
