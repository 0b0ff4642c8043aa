"""Which packets of an H.264 stream a clip needs, so that nothing else is decoded.

A packet of H.264 says itself whether any other frame refers to its frame. Those that none refers to and that are not
wanted are passed over, and so is what stands between the last wanted frame of a closed group and the next group. What
is decoded has the same pixels as if all were. Frames are found by their times, so a stream whose packets do not all
have one of their own is none for this: `IrregularError`, and then every frame is decoded and counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext

from system.errors import DecodeError

Packets = Iterable["av.Packet[Any]"]
_SLICES = range(1, 6)  # types of the units of H.264 that hold a picture; 5 is one of a closed group's first frame
_CLOSED = 5
# The most that is held of a video at a time; of what is longer every frame is decoded as it is read.
MOST_BYTES = 64 << 20


class IrregularError(DecodeError):
    """A stream whose frames cannot be told from its packets."""

    def __init__(self, reason: str) -> None:
        super().__init__("decode", reason)


@dataclass(frozen=True, slots=True)
class Gathered:
    """The packets of a stretch of video.

    Attributes:
        packets: in the order of decoding, from a key frame on; some of frames behind the last one among them.
        key: presentation time of the first one.
        times: frame number -> presentation time, of the frames that are shown, up to the last one.
        numbers: presentation time -> frame number, of the same frames.
    """

    packets: tuple[av.Packet[Any], ...]
    key: int
    times: dict[int, int]
    numbers: dict[int, int]


def gather(packets: Packets, first: int, last: int) -> Gathered:
    """Take packets until all those that are shown up to a frame are there, and number their frames.

    Args:
        packets: from a key frame on, in the order of decoding.
        first: number of the frame that is shown first of them.
        last: number of the last frame that has to be there; fewer packets if the video ends before.

    Raises:
        IrregularError: if a packet has no times, or not one of its own, or it is too much.
    """
    taken: list[av.Packet[Any]] = []
    shown: list[int] = []
    bound, before, key = None, None, None
    held_bytes = 0
    for packet in packets:
        if not packet.size:
            break
        time, order = packet.pts, packet.dts
        if time is None or order is None or time < order or (before is not None and order <= before):
            raise IrregularError("its packets have no times, or such as are not in order")
        if bound is not None and order > bound:
            break  # whatever follows is decoded, and so shown, later than the last frame
        before, held_bytes = order, held_bytes + packet.size
        if held_bytes > MOST_BYTES:
            raise IrregularError(f"its last frame is more than {MOST_BYTES >> 20} MiB behind a key frame")
        key = time if key is None else key
        taken.append(packet)
        if not packet.is_discard:
            shown.append(time)
            if len(shown) > last - first:
                bound = sorted(shown)[last - first]
    if key is None or len(set(shown)) != len(shown):
        raise IrregularError("it has no frames, or several of the same time")
    times = dict(enumerate(sorted(shown)[: last - first + 1], first))
    return Gathered(tuple(taken), key, times, {time: number for number, time in times.items()})


def needed(gathered: Gathered, wanted: Collection[int], extradata: bytes | None) -> list[av.Packet[Any]]:
    """Return the packets up to the last wanted frame's, without what closed groups end with after the last wanted one.

    Args:
        gathered: the packets.
        wanted: times of the wanted frames.
        extradata: of the stream, which says how its packets are written.
    """
    kept: list[av.Packet[Any]] = []
    is_passed = True
    for packet in reversed(gathered.packets):
        if packet.pts in wanted:
            is_passed = False
        if is_passed:
            continue
        kept.append(packet)
        is_passed = packet.is_keyframe and closes(memoryview(packet), extradata)
    return kept[::-1]


def closes(data: memoryview, extradata: bytes | None) -> bool:
    """Say whether no frame from this packet of H.264 on refers to one before it; False where that cannot be told."""
    if not extradata or extradata[0] != 1 or len(extradata) < 5:  # not as .mp4 and .mkv have it: lengths, then units
        return False
    length_bytes = 1 + (extradata[4] & 3)
    at = 0
    while at + length_bytes < len(data):
        kind = data[at + length_bytes] & 31
        if kind in _SLICES:
            return kind == _CLOSED
        at += length_bytes + int.from_bytes(data[at : at + length_bytes], "big")
    return False


def decoded(context: VideoCodecContext, packets: Packets, wanted: Collection[int]) -> Iterator[av.VideoFrame]:
    """Yield the frames that are decoded, in the order of presentation: the wanted ones and those referred to.

    Args:
        context: the decoder, which has not seen anything yet.
        packets: to decode.
        wanted: times of the wanted frames.

    Raises:
        av.FFmpegError: if a packet cannot be decoded.
    """
    is_passed: bool | None = None
    for packet in packets:
        if (packet.pts not in wanted) != is_passed:
            is_passed = packet.pts not in wanted
            context.skip_frame = "NONREF" if is_passed else "DEFAULT"
        yield from context.decode(packet)
    yield from context.decode(None)  # what the decoder holds back
