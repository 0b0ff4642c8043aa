"""Bytes and frame numbers in, RGB crops out: the decoders.

Runs in a decode child (child.py), so nothing here reaches for the network or for shared state. Every file is opened
with a list of container formats: a text named .mp4 must not make FFmpeg open what it lists.

T frames of a clip, V views of it. Frames are (V, T, size, size, 3) uint8 RGB.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from system.data.augment import Box, CropDraw, crop_box
from system.errors import DecodeError

Frames = NDArray[np.uint8]

# Containers that FFmpeg may open. None of them names other files to read.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg"
# Scaling that gives the same pixels on every machine with the same FFmpeg.
SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# Formats whose planes can be cut without converting them first.
_PLANAR = re.compile(r"^(yuvj?4\d\dp|gray|gbrp)(\d\d)?(le|be)?$")
# A video may end this many frames before its index says (decoders drop broken leading frames): the last is repeated.
TOLERATED_MISSING = 8


@dataclass(frozen=True, slots=True)
class Seek:
    """A key frame to start decoding at.

    Attributes:
        frame: its number in the video.
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
        frames: T frame numbers, not descending.
        crops: one draw per view.
        size: side of the result, px.
        decoder: `auto` or a decoder's name.
        seek: the last key frame at or before the first wanted frame; None: decode from the start.
    """

    frames: tuple[int, ...]
    crops: tuple[CropDraw, ...]
    size: int
    decoder: str = "auto"
    seek: Seek | None = None

    def shape(self) -> tuple[int, int, int, int, int]:
        """Return the shape of the result."""
        return (len(self.crops), len(self.frames), self.size, self.size, 3)


def open_video(file: io.IOBase) -> tuple[InputContainer, VideoStream]:
    """Open a container of a listed format and find its video stream.

    Raises:
        DecodeError: if it is no such container or holds no video.
    """
    try:
        container = av.open(file, options={"format_whitelist": FORMATS}, metadata_errors="ignore")
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError("open", f"no container that is read here ({_text(error)})") from error
    stream = container.streams.best("video")  # not a cover picture
    if stream is None or stream.codec_context is None or not stream.width:
        container.close()
        raise DecodeError("open", "holds no video stream that a decoder knows")
    assert isinstance(stream, VideoStream)
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all  # so that no other stream's bytes are wanted
    stream.codec_context.thread_count = 1  # a decode actor owns one core
    return container, stream


def _text(error: BaseException) -> str:
    return str(error).split("\n")[0][:200] or type(error).__name__


class _Scaler:
    """Cuts boxes out of decoded frames and scales them to RGB, planes first, so that little is converted."""

    def __init__(self, crops: Sequence[CropDraw], size: int) -> None:
        self._crops = crops
        self._size = size
        self._reformatters = [VideoReformatter() for _ in crops]
        self._whole = VideoReformatter()

    def views(self, frame: av.VideoFrame) -> Frames:
        """(V, size, size, 3) uint8."""
        if not _PLANAR.match(frame.format.name):
            frame = self._whole.reformat(frame, format="gbrp", interpolation=SCALING, threads=1)
        boxes = [crop_box(draw, frame.width, frame.height, self._size) for draw in self._crops]
        return np.stack(
            [
                reformatter.reformat(
                    _cut(frame, box), self._size, self._size, "rgb24", interpolation=SCALING, threads=1
                ).to_ndarray()
                for reformatter, box in zip(self._reformatters, boxes, strict=True)
            ]
        )


def _cut(frame: av.VideoFrame, box: Box) -> av.VideoFrame:
    """Copy a box of a planar frame; the box is moved and cut to whole chroma samples."""
    across = max(1, 64 // max(1, frame.format.chroma_width(64)))
    down = max(1, 64 // max(1, frame.format.chroma_height(64)))
    x, y = box.x // across * across, box.y // down * down
    width, height = max(across, box.width // across * across), max(down, box.height // down * down)
    out = av.VideoFrame(width, height, frame.format.name)
    sample = (frame.format.components[0].bits + 7) // 8
    for source, target in zip(frame.planes, out.planes, strict=True):
        sx, sy = -(-frame.width // source.width), -(-frame.height // source.height)
        rows = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)
        into = np.frombuffer(target, np.uint8).reshape(-1, target.line_size)
        left, top, wide = x // sx * sample, y // sy, target.width * sample
        into[: target.height, :wide] = rows[top : top + target.height, left : left + wide]
    out.colorspace, out.color_range = _colours(frame)
    return out


def _colours(frame: av.VideoFrame) -> tuple[int, int]:
    """Return matrix and range of a frame; what the stream does not say is BT.709 from 720 lines on, else BT.601."""
    unspecified, bt709, bt601 = 2, 1, 6
    matrix = frame.colorspace
    if matrix == unspecified:
        matrix = bt709 if frame.height >= 720 else bt601
    return matrix, frame.color_range


def _numbered(container: InputContainer, stream: VideoStream, seek: Seek | None) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (frame number, frame) in the order of presentation, from the key frame on."""
    number, first_pts = 0, None
    frames: Iterator[av.VideoFrame]
    if seek is not None and seek.frame > 0:
        packets = _from_key_frame(container, stream, seek)
        packet = next(packets)
        number, first_pts = seek.frame, packet.pts
        frames = (frame for each in chain([packet], packets) for frame in each.decode())
    else:
        frames = container.decode(stream)
    for frame in frames:
        # Leading pictures of an open group refer to frames before the seek.
        if first_pts is not None and frame.pts is not None and frame.pts < first_pts:
            continue
        yield number, frame
        number += 1


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


def decode_pyav(file: io.IOBase, request: ClipRequest) -> Frames:
    """Decode with PyAV's own FFmpeg, from the key frame before the clip to the clip's last frame.

    Some streams mark frames as key frames that need frames before them (recovery points, open groups): where decoding
    from one gives damaged frames, the video is decoded from its start.

    Raises:
        DecodeError: if the video cannot be opened, is damaged at a wanted frame, or ends too early.
    """
    try:
        return _decode_from(file, request)
    except DecodeError as error:
        if request.seek is None or request.seek.frame == 0 or error.code not in ("corrupt", "decode"):
            raise
    file.seek(0)
    return _decode_from(file, replace(request, seek=None))


def _decode_from(file: io.IOBase, request: ClipRequest) -> Frames:
    container, stream = open_video(file)
    with container:
        wanted = sorted(set(request.frames))
        scaler = _Scaler(request.crops, request.size)
        found: dict[int, Frames] = {}
        turns, last = 0, -1
        try:
            for number, frame in _numbered(container, stream, request.seek):
                last = number
                if number in wanted:
                    if frame.is_corrupt:
                        raise DecodeError("corrupt", f"frame {number} is damaged")
                    turns = round(frame.rotation / 90) % 4
                    found[number] = scaler.views(frame)
                if number >= wanted[-1]:
                    break
        except (av.FFmpegError, ValueError, StopIteration) as error:
            raise DecodeError("decode", f"frame {last + 1} cannot be decoded ({_text(error)})") from error
    return np.ascontiguousarray(np.rot90(_clip(request.frames, found, last), turns, (2, 3)))


def _clip(frames: Sequence[int], found: dict[int, Frames], last: int) -> Frames:
    """Put the views of each wanted frame in order: (V, T, size, size, 3).

    A video that ends a little early repeats its last found frame.
    """
    missing = [number for number in frames if number not in found]
    if missing and (not found or missing[-1] - last > TOLERATED_MISSING):
        raise DecodeError("short", f"frame {missing[0]} is wanted and the video ends after frame {last}")
    newest = max(found)
    return np.stack([found[number if number in found else newest] for number in frames], 1)


def _whole_frames(images: Frames, request: ClipRequest) -> Frames:
    """Crop and scale decoded RGB frames (T, H, W, 3), one per wanted frame."""
    scaler = _Scaler(request.crops, request.size)
    views = [scaler.views(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")) for image in images]
    return np.stack(views, 1)


def _checked_bytes(file: io.IOBase) -> bytes:
    """Return a file's bytes if they are a container of a listed format: the other decoders cannot restrict FFmpeg."""
    open_video(file)[0].close()
    file.seek(0)
    data = file.read()
    assert isinstance(data, bytes)
    return data


def _frames_within(frames: Sequence[int], count: int) -> list[int]:
    if frames[-1] - (count - 1) > TOLERATED_MISSING:
        raise DecodeError("short", f"frame {frames[-1]} is wanted and the video has {count}")
    return [min(number, count - 1) for number in frames]


def decode_decord(file: io.IOBase, request: ClipRequest) -> Frames:
    """Decode with decord (no AV1, no longer maintained); reads the whole video.

    Raises:
        DecodeError: if decord cannot open or decode it.
    """
    import decord  # noqa: PLC0415  loads its own FFmpeg

    data = _checked_bytes(file)
    try:
        reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
        images = reader.get_batch(_frames_within(request.frames, len(reader))).asnumpy()
    except (decord.DECORDError, RuntimeError) as error:
        raise DecodeError("decode", f"decord: {_text(error)}") from error
    return _whole_frames(images, request)


def decode_torchcodec(file: io.IOBase, request: ClipRequest) -> Frames:
    """Decode with torchcodec (an extra; needs the FFmpeg libraries of the system); reads the whole video.

    Raises:
        DecodeError: if torchcodec cannot open or decode it.
    """
    from torchcodec.decoders import VideoDecoder  # noqa: PLC0415  an extra

    data = _checked_bytes(file)
    try:
        decoder = VideoDecoder(data, dimension_order="NHWC", num_ffmpeg_threads=1)
        indices = _frames_within(request.frames, decoder.metadata.num_frames or 0)
        images = decoder.get_frames_at(indices).data.numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        raise DecodeError("decode", f"torchcodec: {_text(error)}") from error
    return _whole_frames(images, request)


Decoder = Callable[[io.IOBase, ClipRequest], Frames]
DECODERS: dict[str, Decoder] = {"pyav": decode_pyav, "decord": decode_decord, "torchcodec": decode_torchcodec}
# The order of `auto`: PyAV is the fastest on small streams, equal on large ones, and knows AV1.
AUTO = ("pyav", "decord")


def has_decoder(name: str) -> bool:
    """Say whether a decoder is installed."""
    return importlib.util.find_spec("av" if name == "pyav" else name) is not None


def decode_clip(file: io.IOBase, request: ClipRequest) -> tuple[Frames, str]:
    """Decode a clip with the decoder that the request names, or with the first of `auto` that can.

    Returns:
        (V, T, size, size, 3) uint8 RGB, and the decoder's name.

    Raises:
        DecodeError: if no decoder can; the first one's reason.
    """
    names = AUTO if request.decoder == "auto" else (request.decoder,)
    failure: DecodeError | None = None
    for name in names:
        if not has_decoder(name):
            continue
        file.seek(0)
        try:
            return DECODERS[name](file, request), name
        except DecodeError as error:
            failure = failure or error
            if error.code == "open":
                break
    raise failure or DecodeError("open", f"the decoder {request.decoder} is not installed")


def build_of_decoders() -> dict[str, Any]:
    """Return the versions that pixels depend on."""
    libraries = av.library_versions
    return {
        "pyav": av.__version__,
        "libavcodec": ".".join(map(str, libraries["libavcodec"])),
        "libswscale": ".".join(map(str, libraries["libswscale"])),
    }
