"""Where videos lie, many at once: three columns of the index, and all that reading a small video needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from system.data.groups import RowGroups

Ids = NDArray[np.int64]

NAMES = ("uri", "byte_start", "num_bytes")
# Row groups whose places are kept: a window's, and another's.
KEPT = 24


@dataclass(frozen=True, slots=True)
class Places:
    """Where videos lie.

    Attributes:
        uris: (n,) str, the object that holds each.
        starts: (n,) int64, its first byte there.
        sizes: (n,) int64, its bytes.
    """

    uris: NDArray[Any]
    starts: Ids
    sizes: Ids


class PlaceCache:
    """The places of the row groups that were asked for last.

    Args:
        groups: of the index.
        group_videos: videos of a group, but for the last one.
    """

    def __init__(self, groups: RowGroups, group_videos: int) -> None:
        self._groups, self._group_videos = groups, group_videos
        # Lines of one group each, one after the other.
        num_kept = KEPT * group_videos
        self._kept = Places(np.full(num_kept, "", object), np.zeros(num_kept, np.int64), np.zeros(num_kept, np.int64))
        self._line_of = np.full(-(-groups.num_rows // group_videos), -1, np.int64)
        self._group_of = np.full(KEPT, -1, np.int64)
        self._used_at = np.zeros(KEPT, np.int64)
        self._asked = 0

    def of(self, video_ids: Ids) -> Places:
        """Return the places of videos, in the order given: all of a group's at the cost of its first one."""
        numbers, within = np.divmod(video_ids, self._group_videos)
        lines = self._line_of[numbers]
        self._asked += 1
        self._used_at[lines[lines >= 0]] = self._asked
        if (lines < 0).any():
            missing = np.unique(numbers[lines < 0])
            if len(missing) + np.count_nonzero(self._used_at == self._asked) > KEPT:
                return self._in_parts(video_ids, numbers)
            self._read(missing)
            lines = self._line_of[numbers]
        at, kept = lines * self._group_videos + within, self._kept
        return Places(kept.uris.take(at), kept.starts.take(at), kept.sizes.take(at))

    def _in_parts(self, video_ids: Ids, numbers: Ids) -> Places:
        """Return the places of videos of more groups than are kept."""
        out = Places(np.empty(len(video_ids), object), np.empty_like(video_ids), np.empty_like(video_ids))
        wanted = np.unique(numbers)
        for first in range(0, len(wanted), KEPT):
            part = np.isin(numbers, wanted[first : first + KEPT])
            found = self.of(video_ids[part])
            out.uris[part], out.starts[part], out.sizes[part] = found.uris, found.starts, found.sizes
        return out

    def _read(self, missing: Ids) -> None:
        """Read groups into the lines that were not used for longest."""
        uris, starts, sizes = self._groups.read(missing.tolist(), NAMES, encoded=NAMES[:1]).columns
        rows = _strings(uris), numbers_of(starts), numbers_of(sizes)
        begin, size, kept = 0, self._group_videos, self._kept
        lines = np.argsort(self._used_at, kind="stable")[: len(missing)]
        for number, line in zip(missing.tolist(), lines.tolist(), strict=True):
            count = min(size, self._groups.num_rows - number * size)
            for into, values in zip((kept.uris, kept.starts, kept.sizes), rows, strict=True):
                into[line * size : line * size + count] = values[begin : begin + count]
            begin += count
            if self._group_of[line] >= 0:
                self._line_of[self._group_of[line]] = -1
            self._line_of[number], self._group_of[line], self._used_at[line] = line, number, self._asked


def numbers_of(column: pa.ChunkedArray) -> Ids:
    """Return whole numbers without a null; pyarrow's own way to NumPy imports pandas, a quarter of a second."""
    parts = [np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset :][: len(chunk)] for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _strings(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return strings, one object for each different one of a chunk: neighbours often lie in the same object."""
    return np.concatenate([_of_chunk(chunk) for chunk in column.chunks])


def _of_chunk(chunk: pa.Array) -> NDArray[Any]:
    if not isinstance(chunk, pa.DictionaryArray):
        return np.array(chunk.to_pylist(), object)
    places = chunk.indices
    codes = np.frombuffer(places.buffers()[1], np.int32)[places.offset :][: len(places)]
    return np.array(chunk.dictionary.to_pylist(), object)[codes]
