"""Opening a video with PyAV's own FFmpeg, and going to a key frame of it: what may be opened, and what it must hold.

Every file is opened with a list of container formats: a text named .mp4 must not make FFmpeg open what it lists.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import av
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from system.errors import DecodeError

# Containers that FFmpeg may open. None of them names other files to read.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg"


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


class CodecError(DecodeError):
    """A video whose codec PyAV's FFmpeg does not know, in a container that it opens: another decoder may know it."""


def open_container(file: io.IOBase, *, decoders: bool = True) -> InputContainer:
    """Open a container of a listed format.

    Args:
        file: the video.
        decoders: whether FFmpeg may decode the first frames, to find what a container's header does not say.

    Raises:
        DecodeError: if it is no such container.
    """
    try:
        options = (
            {"format_whitelist": FORMATS} if decoders else {"format_whitelist": FORMATS, "codec_whitelist": "none"}
        )
        return av.open(file, "r", options=options, metadata_errors="ignore")
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
    _want_only(container, stream)
    return container, stream


def open_from_header(
    file: io.IOBase, size_px: tuple[int, int] | None = None
) -> tuple[InputContainer, VideoStream] | None:
    """Open an .mp4 or .mov file as `open_video` does, and if that is enough by what its header says of the streams.

    Nothing is decoded for that, which `open_video` does for 0.7 to 2 ms. It has to choose where several streams may be
    the video.

    Args:
        file: the video.
        size_px: width and height of the video stream, if they are known.

    Returns:
        None if it is no such file.

    Raises:
        CodecError: if the codec of its video is not known.
        DecodeError: if it cannot be opened, or holds no video.
    """
    is_such = file.read(8)[4:] == b"ftyp"
    file.seek(0)
    if not is_such:
        return None
    container = open_container(file, decoders=False)
    known = [stream for stream in container.streams.video if stream.codec_context is not None]  # or it has no size
    streams = [stream for stream in known if size_px in (None, (stream.width, stream.height))]
    if len(streams) == 1 and streams[0].width:
        _want_only(container, streams[0])
        return container, streams[0]
    container.close()
    file.seek(0)
    return open_video(file)


def _want_only(container: InputContainer, stream: VideoStream) -> None:
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all  # so that no other stream's bytes are wanted
    stream.codec_context.thread_count = 1  # a decode actor owns one core


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, cut to 200 characters."""
    return str(error).split("\n")[0][:200] or type(error).__name__


def from_key_frame(container: InputContainer, stream: VideoStream, seek: Seek) -> Iterator[av.Packet[Any]]:
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
