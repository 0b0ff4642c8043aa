"""Where videos lie, many at once: three columns of the index, and all that reading a small video needs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
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
        self._kept = Places(
            np.full((KEPT, group_videos), "", object),
            np.zeros((KEPT, group_videos), np.int64),
            np.zeros((KEPT, group_videos), np.int64),
        )
        self._line: OrderedDict[int, int] = OrderedDict()  # group -> its line of what is kept, the oldest first

    def of(self, video_ids: Ids) -> Places:
        """Return the places of videos, in the order given: all of a group's at the cost of its first one."""
        numbers, within = np.divmod(video_ids, self._group_videos)
        wanted, which = np.unique(numbers, return_inverse=True)
        kept = self._kept
        if len(wanted) <= KEPT:
            lines = self._lines(wanted.tolist())[which]
            return Places(kept.uris[lines, within], kept.starts[lines, within], kept.sizes[lines, within])
        out = Places(np.empty(len(video_ids), object), np.empty_like(video_ids), np.empty_like(video_ids))
        for first in range(0, len(wanted), KEPT):
            part = (which >= first) & (which < first + KEPT)
            found = self.of(video_ids[part])
            out.uris[part], out.starts[part], out.sizes[part] = found.uris, found.starts, found.sizes
        return out

    def _lines(self, wanted: Sequence[int]) -> NDArray[np.intp]:
        """Return the lines of groups, `KEPT` at most, after reading those that are not there."""
        for number in wanted:
            if number in self._line:
                self._line.move_to_end(number)
        missing = [number for number in wanted if number not in self._line]
        if missing:
            self._read(missing)
        return np.array([self._line[number] for number in wanted], np.intp)

    def _read(self, missing: Sequence[int]) -> None:
        table = self._groups.read(missing, NAMES)
        uris, starts, sizes = _strings(table.column(0)), table.column(1).to_numpy(), table.column(2).to_numpy()
        at, kept = 0, self._kept
        for number in missing:
            line = len(self._line) if len(self._line) < KEPT else self._line.popitem(last=False)[1]
            count = min(self._group_videos, self._groups.num_rows - number * self._group_videos)
            rows = slice(at, at + count)
            kept.uris[line, :count], kept.starts[line, :count], kept.sizes[line, :count] = (
                uris[rows],
                starts[rows],
                sizes[rows],
            )
            self._line[number] = line
            at += count


def _strings(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return strings, one object for each different one: neighbours often lie in the same object."""
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(encoded.dictionary.to_pylist(), object)[encoded.indices.to_numpy()]
