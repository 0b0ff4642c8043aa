"""The bytes that slots need: fetched together, and how they travel in a row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from system import storage
from system.errors import DecodeError

# (start in the video, bytes) of each piece of it that is at hand.
Segments = tuple[tuple[int, bytes], ...]


class Reading(NamedTuple):  # made 2,000 times a step, in a third of a dataclass's time
    """What is read for a slot at some attempt.

    Attributes:
        slot: endless slot number.
        attempt: 0 for the slot's own video, else which spare.
        video_id: the video's number.
        uri: the object that holds it.
        byte_start: its first byte there.
        ranges: of the video, half-open, bytes.
    """

    slot: int
    attempt: int
    video_id: int
    uri: str
    byte_start: int
    ranges: tuple[tuple[int, int], ...]

    def in_object(self) -> list[tuple[int, int]]:
        """Return the ranges as those of the object."""
        return [(self.byte_start + start, self.byte_start + stop) for start, stop in self.ranges]


def fetch(readings: Sequence[Reading]) -> list[Segments | DecodeError]:
    """Fetch the bytes of several slots: neighbouring ranges of one object in one request, all requests side by side.

    Returns:
        For each slot its (start in the video, bytes), or a `DecodeError` where the object is gone or was replaced.

    Raises:
        DataError: if storage refuses the credentials, or there is no such bucket.
        StorageFault: if storage does not answer.
    """
    wanted: dict[str, list[tuple[int, int]]] = {}
    for reading in readings:
        wanted.setdefault(reading.uri, []).extend(reading.in_object())
    merged = {uri: storage.merge_ranges(ranges) for uri, ranges in wanted.items()}
    requests = [(uri, whole) for uri, wholes in merged.items() for whole in wholes]
    tasks: list[Callable[[], bytes | storage.MissingError]] = [partial(_read, uri, *whole) for uri, whole in requests]
    got = dict(zip(requests, storage.in_parallel(tasks), strict=True))
    return [_cut_out(reading, merged[reading.uri], got) for reading in readings]


def _read(uri: str, start: int, stop: int) -> bytes | storage.MissingError:
    """Read a range. Only an object that is gone says something about its video; what else goes wrong is raised."""
    try:
        return storage.read(uri, start, stop)
    except storage.MissingError as error:
        return error


def _cut_out(
    reading: Reading,
    wholes: Sequence[tuple[int, int]],
    got: dict[tuple[str, tuple[int, int]], bytes | storage.MissingError],
) -> Segments | DecodeError:
    segments = []
    for start, stop in reading.in_object():
        whole = wholes[bisect_right(wholes, start, key=_begin) - 1]
        data = got[reading.uri, whole]
        if isinstance(data, storage.MissingError):
            return DecodeError("storage", str(data))
        segments.append((start - reading.byte_start, data[start - whole[0] : stop - whole[0]]))
    return tuple(segments)


def _begin(whole: tuple[int, int]) -> int:
    return whole[0]


def pack_starts(segments: Segments) -> bytes:
    """Write start and length of each segment as int64, for the column `starts` of a row; `bytes` has their bytes."""
    return np.array([(start, len(data)) for start, data in segments], np.int64).tobytes()


def unpack_segments(starts: bytes, data: bytes) -> Segments:
    """Cut the bytes of a row into its segments, by what `pack_starts` wrote."""
    segments, at = [], 0
    for start, length in np.frombuffer(starts, np.int64).reshape(-1, 2).tolist():
        segments.append((start, data[at : at + length]))
        at += length
    return tuple(segments)
