"""Bytes and frame numbers in, RGB crops out, by PyAV's own FFmpeg. decoders.py has the others, and chooses.

Runs in a decode child (child.py), so nothing here reaches for the network or for shared state. Every file is opened
with a list of container formats: a text named .mp4 must not make FFmpeg open what it lists.

T frames of a clip, V views of it. Frames are (V, T, size, size, 3) uint8 RGB.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from system.core.vectors import CLIP_CELL_PX
from system.data.augment import CropDraw
from system.data.scale import Frames, Scaler
from system.errors import DecodeError

if TYPE_CHECKING:
    from system.data.vectors import VectorCollector

# Containers that FFmpeg may open. None of them names other files to read.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg"
# A video may end this many frames before its index says (decoders drop broken leading frames): the last is repeated.
TOLERATED_MISSING = 8


# Frames that an open group can show before its key frame: the deepest reordering that codecs allow.
MAX_LEADING = 16


@dataclass(frozen=True, slots=True)
class Seek:
    """A key frame to start decoding at.

    Attributes:
        frame: shown frames before it in the order of decoding.
        timestamp: its packet's dts or pts, as the index has it, in the stream's time base.
        target: where to seek, between this key frame and the next: demuxers compare with presentation times, which
            lie a little after the decoding times that an index may hold.
    """

    frame: int
    timestamp: int
    target: int


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """What is wanted of one video.

    Attributes:
        frames: T frame numbers in any order, the first one not after any other.
        crops: one draw per view.
        size: side of the result, px.
        decoder: `auto` or a decoder's name.
        seek: the last key frame at or before the first wanted frame; None: decode from the start.
        layers: only every `layers`-th frame of the stream is a reference, and all wanted frames are such; 0: any.
        pairs: positions in `frames` of the frames between which the stream's motion vectors are wanted.
    """

    frames: tuple[int, ...]
    crops: tuple[CropDraw, ...]
    size: int
    decoder: str = "auto"
    seek: Seek | None = None
    layers: int = 0
    pairs: tuple[tuple[int, int], ...] = ()

    def shape(self) -> tuple[int, int, int, int, int]:
        """Return the shape of the result."""
        return (len(self.crops), len(self.frames), self.size, self.size, 3)

    def flow_shape(self) -> tuple[int, int, int, int, int]:
        """Return the shape of the flow: (V, R, cells, cells, 2)."""
        side = -(-self.size // CLIP_CELL_PX)
        return (len(self.crops), len(self.pairs), side, side, 2)


class CodecError(DecodeError):
    """A video whose codec PyAV's FFmpeg does not know, in a container that it opens: another decoder may know it."""


def open_container(file: io.IOBase) -> InputContainer:
    """Open a container of a listed format.

    Raises:
        DecodeError: if it is no such container.
    """
    try:
        return av.open(file, "r", options={"format_whitelist": FORMATS}, metadata_errors="ignore")
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError("open", f"no container that is read here ({first_line(error)})") from error


def open_video(file: io.IOBase) -> tuple[InputContainer, VideoStream]:
    """Open a container of a listed format and find its video stream.

    Raises:
        CodecError: if the codec of its video is not known.
        DecodeError: if it is no such container or holds no video.
    """
    container = open_container(file)
    stream = container.streams.best("video")  # not a cover picture
    unknown = any(each.codec_context is None for each in container.streams.video)
    if not isinstance(stream, VideoStream) or stream.codec_context is None or not stream.width:
        container.close()
        raise (CodecError if unknown else DecodeError)("open", "holds no video stream that a decoder knows")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all  # so that no other stream's bytes are wanted
    stream.codec_context.thread_count = 1  # a decode actor owns one core
    return container, stream


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, cut to 200 characters."""
    return str(error).split("\n")[0][:200] or type(error).__name__


def _numbered(
    container: InputContainer, stream: VideoStream, seek: Seek | None, layers: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (frame number, frame) in the order of presentation, from the key frame on; of layers only references."""
    number, first_pts = 0, None
    frames: Iterator[av.VideoFrame]
    if layers:
        stream.codec_context.skip_frame = "NONREF"
    if seek is not None and seek.frame > 0:
        packets = _from_key_frame(container, stream, seek)
        head = list(islice(packets, 1 + MAX_LEADING))
        first_pts = head[0].pts
        number = seek.frame + sum(_is_leading(packet, first_pts) for packet in head)
        frames = (frame for packet in chain(head, packets) for frame in packet.decode())
    else:
        frames = container.decode(stream)
    if layers:
        yield from _by_time(frames, number)
        return
    for frame in frames:
        # Leading pictures of an open group refer to frames before the seek.
        if first_pts is not None and frame.pts is not None and frame.pts < first_pts:
            continue
        yield number, frame
        number += 1


def _by_time(frames: Iterator[av.VideoFrame], first: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Number the frames of a stream of constant rate by their times, since those between them are not decoded.

    Raises:
        DecodeError: if the rate is not constant; all frames must be decoded then.
    """
    begin: int | None = None
    tick = 0
    for frame in frames:
        if begin is None:
            begin, tick = frame.pts, frame.duration
        if begin is None or not tick or frame.pts is None or (frame.pts - begin) % tick:
            raise DecodeError("decode", "its frames have no times of a constant rate")
        yield first + (frame.pts - begin) // tick, frame


def _is_leading(packet: av.Packet[Any], first_pts: int | None) -> bool:
    """Say whether a packet after a key frame's is shown before it, and shown at all."""
    return first_pts is not None and packet.pts is not None and packet.pts < first_pts and not packet.is_discard


def _from_key_frame(container: InputContainer, stream: VideoStream, seek: Seek) -> Iterator[av.Packet[Any]]:
    """Yield the packets from a key frame on.

    Raises:
        DecodeError: if there is no such key frame.
    """
    for target in (seek.target, seek.timestamp):
        container.seek(target, stream=stream, backward=True)
        packets = container.demux(stream)
        for packet in packets:
            if packet.is_keyframe and seek.timestamp in (packet.dts, packet.pts):
                return chain([packet], packets)
            if packet.dts is None or packet.dts > seek.timestamp:
                break  # the seek went past it
    raise DecodeError("open", f"no key frame at {seek.timestamp}, where the index says; index the videos again")


def decode_pyav(file: io.IOBase, request: ClipRequest, vectors: VectorCollector | None = None) -> Frames:
    """Decode with PyAV's own FFmpeg, from the key frame before the clip to the clip's last frame.

    Some streams mark frames as key frames that need frames before them (recovery points, open groups): where decoding
    from one gives damaged frames, the video is decoded from its start. Where decoding only the references of a layered
    stream fails, all frames are decoded.

    Args:
        file: the video.
        request: what is wanted of it.
        vectors: shown every frame that is decoded, with its motion vectors.

    Raises:
        DecodeError: if the video cannot be opened, is damaged at a wanted frame, or ends too early.
    """
    attempts = [request]
    if request.layers:
        attempts.append(replace(request, layers=0))
    if request.seek is not None and request.seek.frame > 0:
        attempts.append(replace(request, layers=0, seek=None))
    for left, attempt in zip(range(len(attempts) - 1, -1, -1), attempts, strict=True):
        file.seek(0)
        try:
            return _decode_from(file, attempt, vectors)
        except DecodeError as error:
            if error.code == "open" or not left:
                raise
    raise AssertionError("the last attempt returns or raises")


@dataclass(slots=True)
class _Found:
    """What has been decoded of a clip: the views of its frames, how they are to be turned, the last frame's number."""

    views: dict[int, Frames] = field(default_factory=dict)
    turns: int = 0
    last: int = -1


def _decode_from(file: io.IOBase, request: ClipRequest, vectors: VectorCollector | None) -> Frames:
    container, stream = open_video(file)
    found, wanted = _Found(), set(request.frames)
    with container:
        if vectors is not None:
            vectors.begin(stream)
        try:
            _look(found, _numbered(container, stream, request.seek, request.layers), request, vectors)
        except av.error.DecoderNotFoundError as error:
            raise CodecError("open", f"its codec is not known ({first_line(error)})") from error
        except (av.FFmpegError, ValueError, StopIteration) as error:
            if len(found.views) < len(wanted):  # and not behind the clip, where vectors are looked for
                bad = min(number for number in wanted if number not in found.views)
                raise DecodeError("decode", f"frame {bad} cannot be decoded ({first_line(error)})") from error
    if request.layers and len(found.views) < len(wanted):
        raise DecodeError("decode", f"not every {request.layers}th frame is a reference")
    return np.ascontiguousarray(np.rot90(_clip(request.frames, found.views, found.last), found.turns, (2, 3)))


def _look(
    into: _Found, numbered: Iterator[tuple[int, av.VideoFrame]], request: ClipRequest, vectors: VectorCollector | None
) -> None:
    """Take the wanted frames, and let the collector see all of them."""
    scaler, wanted = Scaler(request.crops, request.size), sorted(set(request.frames))
    for number, frame in numbered:
        if into.last < 0 and number > wanted[0]:
            raise DecodeError("decode", f"frame {wanted[0]} is shown before the key frame {number}")
        into.last = number
        if vectors is not None:
            vectors.see(number, frame)
        if number in wanted:
            if frame.is_corrupt:
                raise DecodeError("corrupt", f"frame {number} is damaged")
            into.turns = round(frame.rotation / 90) % 4
            into.views[number] = scaler.views(frame)
        if number >= wanted[-1] and (vectors is None or vectors.is_complete(wanted[-1])):
            return


def _clip(frames: Sequence[int], found: dict[int, Frames], last: int) -> Frames:
    """Put the views of each wanted frame in order: (V, T, size, size, 3).

    A video that ends a little early repeats its last found frame.
    """
    missing = [number for number in frames if number not in found]
    if missing and (not found or max(missing) - last > TOLERATED_MISSING):
        raise DecodeError("short", f"frame {missing[0]} is wanted and the video ends after frame {last}")
    newest = max(found)
    return np.stack([found[number if number in found else newest] for number in frames], 1)
