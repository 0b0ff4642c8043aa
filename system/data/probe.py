"""What a stream says about itself, read from its header wherever the container has an index.

Runs in a decode child, like decoding: a hostile header is as dangerous as a hostile frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import av

from system.data.containers import open_video
from system.data.supplied import SuppliedFile
from system.errors import DecodeError


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """One video as the index describes it.

    Attributes:
        codec: decoder's name, such as h264.
        width: coded width, px.
        height: coded height, px.
        num_frames: frames that are shown; an edit list may hide some, as it does where a file was cut without
            re-encoding and has to start at a key frame.
        fps: average frames per second; 0 where the stream does not say.
        key_frames: shown frames before each key frame in the order of decoding, which is that of presentation but for
            the few frames that an open group shows before its key frame.
        key_timestamps: a timestamp of each key frame's packet, in the stream's time base, to seek to.
        key_positions: where each key frame's packet begins, bytes; -1 where the container does not say.
        header: start and stop of the byte ranges that opening and seeking read, flattened.
    """

    codec: str
    width: int
    height: int
    num_frames: int
    fps: float
    key_frames: list[int]
    key_timestamps: list[int]
    key_positions: list[int]
    header: list[int]

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        return asdict(self)


class _Entry(NamedTuple):
    """One frame of a container's index, or one packet."""

    time: int | None
    position: int
    is_key: bool
    is_hidden: bool


_INT32, _INT64 = 1 << 31, 1 << 63


def checked_facts(values: Any, num_bytes: int) -> dict[str, Any]:
    """Return what a decode child says about a video if it could be true: nothing that a child says is believed.

    Args:
        values: the fields of `VideoFacts`.
        num_bytes: length of the video.

    Raises:
        DecodeError: `crash`, if a field is missing or no index could hold it.
    """
    try:
        facts = VideoFacts(**values)
        keys = (facts.key_frames, facts.key_timestamps, facts.key_positions)
        sound = (
            type(facts.codec) is str
            and facts.codec.isprintable()
            and len(facts.codec) < 100
            and _are_within([facts.width, facts.height, facts.num_frames], 1, _INT32)
            and type(facts.fps) is float
            and 0 <= facts.fps < float("inf")
            and len({len(column) for column in keys}) == 1
            and _are_within(facts.key_frames, 0, _INT32)
            and _are_within(facts.key_timestamps, -_INT64, _INT64)
            and _are_within(facts.key_positions, -1, num_bytes)
            and _are_within(facts.header, 0, num_bytes + 1)
            and len(facts.header) % 2 == 0
        )
    except TypeError:
        sound = False
    if not sound:
        raise DecodeError("crash", "its decoder answers out of order (its facts are none)")
    return facts.as_dict()


def _are_within(numbers: list[int], start: int, stop: int) -> bool:
    return type(numbers) is list and all(type(number) is int and start <= number < stop for number in numbers)


def probe_video(file: SuppliedFile) -> VideoFacts:
    """Read what a video's header says; where the container has no index of its frames, read all packets.

    Raises:
        DecodeError: if it is no video that a decoder knows, or has no frames.
    """
    container, stream = open_video(file)
    with container:
        facts = (stream.codec_context.name, stream.width, stream.height)
        rate = stream.average_rate or stream.guessed_rate
        entries = [_Entry(e.timestamp, e.pos, e.is_keyframe, e.is_discard) for e in stream.index_entries]
        if not stream.frames or len(entries) != stream.frames:  # an index of key frames only, or none
            entries = _from_packets(container, stream)
    num_frames, keys = _count(entries)
    if not num_frames:
        raise DecodeError("open", "its video stream has no frames")
    frames, timestamps, positions = (list(column) for column in zip(*keys, strict=True)) if keys else ([], [], [])
    header = [edge for piece in _header(file, timestamps) for edge in piece]
    return VideoFacts(*facts, num_frames, float(rate) if rate else 0.0, frames, timestamps, positions, header)


def _header(file: SuppliedFile, timestamps: list[int]) -> list[tuple[int, int]]:
    """Return the byte ranges that opening a video and seeking in it read."""
    file.forget_touched()
    container, stream = open_video(file)
    with container:
        if timestamps:
            container.seek(timestamps[-1], stream=stream, backward=True)
    return file.touched()


def _from_packets(container: av.container.InputContainer, stream: av.VideoStream) -> list[_Entry]:
    """Read all of a stream's packets."""
    entries: list[_Entry] = []
    try:
        for packet in container.demux(stream):
            if packet.size:
                time = packet.dts if packet.pts is None else packet.pts
                position = -1 if packet.pos is None else packet.pos
                entries.append(_Entry(time, position, packet.is_keyframe, packet.is_discard))
    except av.FFmpegError as error:
        if not entries:
            raise DecodeError("open", f"its packets cannot be read ({error})") from error
    return entries


def _count(entries: Sequence[_Entry]) -> tuple[int, list[tuple[int, int, int]]]:
    """Count the shown frames, and give number, time and position of each key frame."""
    shown = 0
    keys: list[tuple[int, int, int]] = []
    for entry in entries:
        # Of two key frames without a shown frame between them the first one serves: decoding begins there.
        if entry.is_key and entry.time is not None and not (keys and keys[-1][0] == shown):
            keys.append((shown, entry.time, entry.position))
        shown += not entry.is_hidden
    return shown, keys
