"""The decoders by name, and the order in which they are tried.

PyAV is in decode.py. The others bring or find their own FFmpeg and cannot be told which containers to open, so PyAV
looks at a file before they do.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from typing import Any

import av
import numpy as np

from system.data.decode import TOLERATED_MISSING, ClipRequest, decode_pyav, first_line, open_video
from system.data.scale import Frames, Scaler
from system.errors import DecodeError


def _whole_frames(images: Frames, request: ClipRequest) -> Frames:
    """Crop and scale decoded RGB frames (T, H, W, 3), one per wanted frame."""
    scaler = Scaler(request.crops, request.size)
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
        raise DecodeError("decode", f"decord: {first_line(error)}") from error
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
        raise DecodeError("decode", f"torchcodec: {first_line(error)}") from error
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
