"""Re-encoding one video so that a clip of it costs little to decode: smaller, and with key frames close together."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import islice

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from system.data.containers import open_video
from system.data.scale import SCALING, colours
from system.errors import DecodeError

_MATRICES = frozenset(int(matrix) for matrix in Colorspace)
# Numbers of matrices that FFmpeg's scaler knows by another one: BT.601 has two, BT.2020 too.
_SAME_MATRIX = {6: 5, 10: 9}


def _target_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Scale so that the shorter side is at most `short_side` px; both sides even, as 4:2:0 needs."""
    scale = min(1.0, short_side / min(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _x264(key_every: int, layers: int) -> str:
    """Return x264's parameters: no B-frames, or so many that every `layers`-th frame is a reference and no other is.

    One reference and no weights, so a P-frame's vectors point to the reference before it. A group is closed, so the
    frame before a key frame is one more reference. Intra blocks are whole macroblocks in layers: with small ones x264
    draws much anew that has moved over several frames, and then it has no vector (45% of a flying bird, else 23%).
    """
    layered = f"bframes={layers - 1}:b-adapt=0:b-pyramid=none:weightp=0:partitions=p8x8,b8x8"
    between = layered if layers > 1 else "bframes=0"
    return f"{between}:ref=1:keyint={key_every}:min-keyint={key_every}:scenecut=0:open-gop=0:threads=1"


def transcode(file: io.IOBase, *, short_side: int, key_every: int, crf: int, layers: int = 0, phase: int = 0) -> bytes:
    """Re-encode a video as H.264, a key frame every `key_every` frames, without sound.

    The result is upright, and says which colours it has.

    Args:
        file: the video.
        short_side: largest shorter side of the result, px; smaller videos keep their size.
        key_every: frames from one key frame to the next.
        crf: x264's quality, smaller is better; 23 is its default.
        layers: every `layers`-th frame is a reference, and those between are not; 0: all are, without B-frames.
        phase: frames that are dropped at the start.

    Returns:
        The bytes of an .mp4 file.

    Raises:
        DecodeError: if the video cannot be read to its end.
    """
    container, stream = open_video(file)
    target = io.BytesIO()
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    prepare = _Prepare(stream.width, stream.height, short_side)
    options: dict[str, object] = {
        "preset": "veryfast",
        "crf": str(crf),
        "x264-params": _x264(key_every, layers),
    }
    written = 0
    try:
        with container, av.open(target, "w", format="mp4") as out:
            encoder = out.add_stream("libx264", rate=Fraction(rate).limit_denominator(65535))
            encoder.pix_fmt, encoder.options = "yuv420p", options
            for source in islice(container.decode(stream), phase, None):
                frame = prepare(source)
                if not written:  # only a frame knows how it is turned, and its colours
                    _describe(encoder, frame)
                frame.pict_type = 0  # or the source's key frames are forced on the new stream
                frame.pts = written
                frame.time_base = 1 / Fraction(rate)
                out.mux(encoder.encode(frame))
                written += 1
            out.mux(encoder.encode())
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError("decode", f"frame {written} cannot be read ({error})") from error
    if not written:
        raise DecodeError("decode", "holds no frame that can be decoded")
    return target.getvalue()


def _describe(encoder: VideoStream, frame: av.VideoFrame) -> None:
    """Give a stream the size and the colours of its frames, so that whoever decodes it need not guess them."""
    context = encoder.codec_context
    context.width, context.height = frame.width, frame.height
    context.colorspace, context.color_range = frame.colorspace, frame.color_range
    context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc


class _Prepare:
    """Makes a stream's frames upright, smaller and 4:2:0 of limited range, in their own matrix of colours."""

    def __init__(self, width: int, height: int, short_side: int) -> None:
        self._width, self._height = _target_size(width, height, short_side)
        self._scaler = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        turns = round(frame.rotation / 90) % 4
        matrix, color_range = colours(frame)
        full = color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        matrix = _SAME_MATRIX.get(matrix, matrix)
        if matrix in _MATRICES:
            frame.colorspace = matrix
        else:  # RGB, which has none, and what FFmpeg's scaler does not know
            matrix = Colorspace.ITU709
        scaled = self._scaler.reformat(
            frame,
            self._width,
            self._height,
            "yuv420p",
            dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=SCALING,
            threads=1,
        )
        scaled.colorspace, scaled.color_range = matrix, ColorRange.MPEG
        return _turned(scaled, turns) if turns else scaled


def _turned(frame: av.VideoFrame, turns: int) -> av.VideoFrame:
    """Turn a 4:2:0 frame by quarters, against the clock."""
    width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
    out = av.VideoFrame(width, height, frame.format.name)
    for source, target in zip(frame.planes, out.planes, strict=True):
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
        into = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
        into[: target.height, : target.width] = np.rot90(rows[: source.height, : source.width], turns)
    out.colorspace, out.color_range = frame.colorspace, frame.color_range
    out.color_primaries, out.color_trc = frame.color_primaries, frame.color_trc
    return out
