"""Re-encoding one video so that a clip of it costs little to decode: smaller, and with key frames close together."""

from __future__ import annotations

import io
from fractions import Fraction

import av
from av.video.reformatter import VideoReformatter

from system.data.decode import open_video
from system.data.scale import SCALING
from system.errors import DecodeError


def _target_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Scale so that the shorter side is at most `short_side` px; both sides even, as 4:2:0 needs."""
    scale = min(1.0, short_side / min(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def transcode(file: io.IOBase, *, short_side: int, key_every: int, crf: int) -> bytes:
    """Re-encode a video as H.264 without B-frames, a key frame every `key_every` frames, without sound.

    Args:
        file: the video.
        short_side: largest shorter side of the result, px; smaller videos keep their size.
        key_every: frames from one key frame to the next.
        crf: x264's quality, smaller is better; 23 is its default.

    Returns:
        The bytes of an .mp4 file.

    Raises:
        DecodeError: if the video cannot be read to its end.
    """
    container, stream = open_video(file)
    target = io.BytesIO()
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    width, height = _target_size(stream.width, stream.height, short_side)
    scaler = VideoReformatter()
    options: dict[str, object] = {
        "preset": "veryfast",
        "crf": str(crf),
        "x264-params": f"bframes=0:ref=1:keyint={key_every}:min-keyint={key_every}:scenecut=0:open-gop=0:threads=1",
    }
    written = 0
    try:
        with container, av.open(target, "w", format="mp4") as out:
            encoder = out.add_stream("libx264", rate=Fraction(rate).limit_denominator(65535))
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.options = options
            for frame in container.decode(stream):
                scaled = scaler.reformat(frame, width, height, "yuv420p", interpolation=SCALING, threads=1)
                scaled.pict_type = 0  # or the source's key frames are forced on the new stream
                scaled.pts = written
                scaled.time_base = 1 / Fraction(rate)
                out.mux(encoder.encode(scaled))
                written += 1
            out.mux(encoder.encode())
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError("decode", f"frame {written} cannot be read ({error})") from error
    if not written:
        raise DecodeError("decode", "holds no frame that can be decoded")
    return target.getvalue()
