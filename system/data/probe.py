"""What a stream says about itself, read from its header wherever the container has an index.

Runs in a decode child, like decoding: a hostile header is as dangerous as a hostile frame.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import av

from system.data.decode import open_video
from system.data.supplied import SuppliedFile
from system.errors import DecodeError


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """One video as the index describes it.

    Attributes:
        codec: decoder's name, such as h264.
        width: coded width, px.
        height: coded height, px.
        num_frames: frames of the stream.
        fps: average frames per second; 0 where the stream does not say.
        key_frames: places of the key frames in the order of decoding, which is that of presentation but for the few
            frames that an open group shows before its key frame.
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


def probe_video(file: SuppliedFile) -> VideoFacts:
    """Read what a video's header says; where the container has no index of its frames, read all packets.

    Raises:
        DecodeError: if it is no video that a decoder knows, or has no frames.
    """
    container, stream = open_video(file)
    with container:
        facts = (stream.codec_context.name, stream.width, stream.height)
        rate = stream.average_rate or stream.guessed_rate
        entries = [entry for entry in stream.index_entries if not entry.is_discard]
        if stream.frames and len(entries) == stream.frames:
            keys = [(i, e.timestamp, e.pos) for i, e in enumerate(entries) if e.is_keyframe]
            num_frames = len(entries)
        else:
            num_frames, keys = _from_packets(container, stream)
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


def _from_packets(
    container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[int, list[tuple[int, int, int]]]:
    """Count a stream's packets, and find its key frames."""
    count = 0
    keys: list[tuple[int, int, int]] = []
    try:
        for packet in container.demux(stream):
            if packet.size:
                time = packet.dts if packet.pts is None else packet.pts
                if packet.is_keyframe and time is not None:
                    keys.append((count, time, -1 if packet.pos is None else packet.pos))
                count += 1
    except av.FFmpegError as error:
        if not count:
            raise DecodeError("open", f"its packets cannot be read ({error})") from error
    return count, keys
