"""Bytes and frame numbers in, RGB crops out, by PyAV's own FFmpeg. decoders.py has the others, and chooses.

Runs in a decode child (child.py), so nothing here reaches for the network or for shared state.

T frames of a clip, V views of it. Frames are (V, T, size, size, 3) uint8 RGB.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from system.core.vectors import CLIP_CELL_PX
from system.data.augment import Crop
from system.data.containers import CodecError, Seek, first_line, from_key_frame, open_from_header, open_video
from system.data.scale import Frames, Scaler
from system.data.sparse import Gathered, IrregularError, decoded, gather, needed
from system.errors import DecodeError

if TYPE_CHECKING:
    from system.data.vectors import VectorCollector

# A video may end this many frames before its index says (decoders drop broken leading frames): the last is repeated.
TOLERATED_MISSING = 8
# Frames that an open group can show before its key frame: the deepest reordering that codecs allow.
MAX_LEADING = 16


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """What is wanted of one video.

    Attributes:
        frames: T frame numbers in any order, the first one not after any other.
        crops: one per view.
        size: side of the result, px.
        decoder: `auto` or a decoder's name.
        seek: the last key frame at or before the first wanted frame; None: decode from the start.
        layers: only every `layers`-th frame of the stream is a reference, and all wanted frames are such; 0: any.
        pairs: positions in `frames` of the frames between which the stream's motion vectors are wanted.
        size_px: width and height of the video, by the index; None: not known.
    """

    frames: tuple[int, ...]
    crops: tuple[Crop, ...]
    size: int
    decoder: str = "auto"
    seek: Seek | None = None
    layers: int = 0
    pairs: tuple[tuple[int, int], ...] = ()
    size_px: tuple[int, int] | None = None

    def shape(self) -> tuple[int, int, int, int, int]:
        """Return the shape of the result."""
        return (len(self.crops), len(self.frames), self.size, self.size, 3)

    def flow_shape(self) -> tuple[int, int, int, int, int]:
        """Return the shape of the flow: (V, R, cells, cells, 2)."""
        side = -(-self.size // CLIP_CELL_PX)
        return (len(self.crops), len(self.pairs), side, side, 2)


def _numbered(
    container: InputContainer, stream: VideoStream, seek: Seek | None, layers: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (frame number, frame) in the order of presentation, from the key frame on; of layers only references."""
    number, first_pts = 0, None
    is_begun = False
    frames: Iterator[av.VideoFrame]
    if layers:
        stream.codec_context.skip_frame = "NONREF"
    if seek is not None and seek.frame > 0:
        packets = from_key_frame(container, stream, seek)
        head = list(islice(packets, 1 + MAX_LEADING))
        first_pts, is_begun = head[0].pts, head[0].is_discard
        # Frames that are shown before the key frame, and shown at all.
        leading = [each for each in head if first_pts is not None and each.pts is not None and each.pts < first_pts]
        number = seek.frame + sum(not packet.is_discard for packet in leading)
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
        if not is_begun and first_pts is not None and frame.pts != first_pts:
            raise DecodeError("decode", "its key frame alone gives no frame, so those after it cannot be counted")
        is_begun = True
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


def decode_pyav(
    file: io.IOBase, request: ClipRequest, vectors: VectorCollector | None = None, out: Frames | None = None
) -> Frames:
    """Decode with PyAV's own FFmpeg, from the key frame before the clip to the clip's last frame.

    Of an H.264 stream only what the clip needs is decoded, if its packets say what that is (sparse.py); else all
    frames, or the references of a layered stream. Some streams mark frames as key frames that need frames before them:
    where decoding from one gives damaged frames, the video is decoded from its start.

    Args:
        file: the video.
        request: what is wanted of it.
        vectors: shown every frame that is decoded, with its motion vectors.
        out: contiguous memory of the result's shape, to be used for it; frames that are turned are put elsewhere.

    Raises:
        DecodeError: if the video cannot be opened, is damaged at a wanted frame, or ends too early.
    """
    seeks = request.seek is not None and request.seek.frame > 0
    for sparse in (request, replace(request, seek=None))[: 1 + seeks]:
        file.seek(0)
        try:
            if (clip := _decode_sparsely(file, sparse, vectors, out)) is not None:
                return clip
            break
        except DecodeError as error:
            if error.code != "corrupt":  # which whoever decodes all frames from there finds too
                break
    attempts = [request, replace(request, layers=0)][: 2 if request.layers else 1]
    if seeks:
        attempts.append(replace(request, layers=0, seek=None))
    for left, attempt in zip(range(len(attempts) - 1, -1, -1), attempts, strict=True):
        file.seek(0)
        try:
            return _decode_from(file, attempt, vectors, out)
        except DecodeError as error:
            if error.code == "open" or not left:
                raise
    raise AssertionError("the last attempt returns or raises")


class _Found:
    """What has been decoded of a clip: the views of its frames, how they are to be turned, the last frame's number."""

    def __init__(self, request: ClipRequest, out: Frames | None) -> None:
        views, count, size, _, _ = request.shape()
        self.frames = request.frames
        self.clip = (np.empty(request.shape(), np.uint8) if out is None else out).reshape(views, count, size, 3 * size)
        self.at: dict[int, int] = {}  # a frame's number -> where it lies in the clip
        self.turns = 0
        self.last = -1

    def take(self, number: int, frame: av.VideoFrame, scaler: Scaler) -> None:
        """Put the views of a wanted frame in their place."""
        self.at[number] = self.frames.index(number)
        self.turns = round(frame.rotation / 90) % 4
        scaler.cut(frame, self.clip[:, self.at[number]])

    def missing(self) -> list[int]:
        """Return the wanted frames that are not there."""
        return [number for number in self.frames if number not in self.at]

    def whole(self) -> Frames:
        """Return the clip, upright: (V, T, size, size, 3). A video that ends a little early repeats its last frame."""
        missing = self.missing()
        if missing and (not self.at or max(missing) - self.last > TOLERATED_MISSING):
            raise DecodeError("short", f"frame {missing[0]} is wanted and the video ends after frame {self.last}")
        newest = max(self.at)
        for place, number in enumerate(self.frames):
            source = self.at[number if number in self.at else newest]
            if source != place:
                self.clip[:, place] = self.clip[:, source]
        clip = self.clip.reshape(*self.clip.shape[:3], -1, 3)
        return np.ascontiguousarray(np.rot90(clip, self.turns, (2, 3)))


def _decode_from(
    file: io.IOBase, request: ClipRequest, vectors: VectorCollector | None = None, out: Frames | None = None
) -> Frames:
    container, stream = open_video(file)
    found = _Found(request, out)
    with container:
        if vectors is not None:
            vectors.begin(stream)
        try:
            _look(found, _numbered(container, stream, request.seek, request.layers), request, vectors)
        except av.error.DecoderNotFoundError as error:
            raise CodecError("open", f"its codec is not known ({first_line(error)})") from error
        except (av.FFmpegError, ValueError, StopIteration) as error:
            if missing := found.missing():  # and not behind the clip, where vectors are looked for
                raise DecodeError("decode", f"frame {min(missing)} cannot be decoded ({first_line(error)})") from error
    if request.layers and found.missing():
        raise DecodeError("decode", f"not every {request.layers}th frame is a reference")
    return found.whole()


def _decode_sparsely(
    file: io.IOBase, request: ClipRequest, vectors: VectorCollector | None = None, out: Frames | None = None
) -> Frames | None:
    """Decode only what a clip needs of an H.264 stream; None where that cannot be done.

    Raises:
        DecodeError: if something is out of order.
    """
    if vectors is not None and not request.layers:  # frames that no other refers to have vectors too
        return None
    opened = open_from_header(file, request.size_px)
    if opened is None:
        return None
    container, stream = opened
    found = _Found(request, out)
    with container:
        if stream.codec_context.name != "h264":
            return None
        if vectors is not None:
            vectors.begin(stream)
        try:
            _look(found, _picked(container, stream, request, vectors is None), request, vectors)
        except (av.FFmpegError, ValueError, StopIteration) as error:
            raise DecodeError("decode", first_line(error)) from error
    is_whole = not found.missing() and (vectors is None or vectors.is_complete(found.last))
    return found.whole() if is_whole else None


def _picked(
    container: InputContainer, stream: VideoStream, request: ClipRequest, is_minimal: bool
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (frame number, frame) of the wanted frames and those that they refer to; if not minimal, all referred to.

    Raises:
        DecodeError: if frames cannot be picked, or there is no key frame where one should be.
    """
    gathered, wanted = gathered_packets(container, stream, request)
    context = stream.codec_context
    for frame in decoded(context, needed(gathered, wanted, context.extradata if is_minimal else None), wanted):
        time = frame.pts
        if time is None or frame.interlaced_frame or (time not in gathered.numbers and time < max(wanted)):
            raise IrregularError("its packets are no frames")
        if time >= gathered.key and time in gathered.numbers:
            yield gathered.numbers[time], frame


def gathered_packets(
    container: InputContainer, stream: VideoStream, request: ClipRequest
) -> tuple[Gathered, frozenset[int]]:
    """Return a clip's packets, from the key frame before it to its last frame, and the times of the wanted frames.

    Raises:
        DecodeError: if frames cannot be told from packets, or there is no key frame where one should be.
    """
    begin, packets = 0, container.demux(stream)
    if request.seek is not None and request.seek.frame > 0:
        begin, packets = request.seek.frame, from_key_frame(container, stream, request.seek)
    gathered = gather(packets, begin, max(request.frames))
    if not all(number in gathered.times for number in request.frames):
        raise IrregularError("it has no such frame")
    wanted = frozenset(gathered.times[number] for number in request.frames)
    if min(wanted) < gathered.key or (begin == 0 and gathered.times[0] < gathered.key):
        raise IrregularError("frames are shown before their key frame")
    return gathered, wanted


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
            into.take(number, frame, scaler)
        if number >= wanted[-1] and (vectors is None or vectors.is_complete(wanted[-1])):
            return
