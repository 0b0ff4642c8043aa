"""The decoders by name, and what `auto` is.

PyAV is in decode.py. The others bring or find their own FFmpeg and cannot be told which containers to open. PyAV looks
at a file before they do, and they get only bytes that no FFmpeg could take for a text: one file may pass for a harmless
container here and for a playlist, which names other files to read, there.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from system.data.containers import CodecError, first_line, open_container
from system.data.decode import TOLERATED_MISSING, ClipRequest, decode_pyav
from system.data.scale import Frames, Scaler
from system.errors import DecodeError, RecipeError

if TYPE_CHECKING:
    from system.data.vectors import VectorCollector


def _whole_frames(images: Frames, request: ClipRequest) -> Frames:
    """Crop and scale decoded RGB frames (T, H, W, 3), one per wanted frame."""
    scaler = Scaler(request.crops, request.size)
    views = [scaler.views(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")) for image in images]
    return np.stack(views, 1)


# Types of the box that an MP4 or QuickTime file may begin with.
_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx"})
_EBML = bytes.fromhex("1a45dfa3")


def _begins_as_no_text(head: bytes) -> bool:
    """Say whether 12 bytes begin a container that cannot be a text: MP4, QuickTime, Matroska, WebM or AVI."""
    box = head[:1] == b"\0" and head[4:8] in _BOXES  # the first byte of a length below 16 MiB; no text has it
    return box or head[:4] == _EBML or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


def _checked_bytes(file: io.IOBase) -> bytes:
    """Return a file's bytes if they are a container of a listed format, and nothing else at the same time."""
    if not _begins_as_no_text(file.read(12)):
        raise DecodeError("open", "no container that decord and torchcodec may open: .mp4, .mov, .mkv, .webm or .avi")
    file.seek(0)
    open_container(file).close()
    file.seek(0)
    data = file.read()
    assert isinstance(data, bytes)
    return data


def _frames_within(frames: Sequence[int], count: int) -> list[int]:
    if max(frames) - (count - 1) > TOLERATED_MISSING:
        raise DecodeError("short", f"frame {max(frames)} is wanted and the video has {count}")
    return [min(number, count - 1) for number in frames]


def decode_decord(file: io.IOBase, request: ClipRequest) -> Frames:
    """Decode with decord (no AV1, no longer maintained); reads the whole video.

    Raises:
        DecodeError: if decord cannot open or decode it.
    """
    data = _checked_bytes(file)
    import decord  # noqa: PLC0415  loads its own FFmpeg

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
    data = _checked_bytes(file)
    from torchcodec.decoders import VideoDecoder  # noqa: PLC0415  an extra

    try:
        decoder = VideoDecoder(data, dimension_order="NHWC", num_ffmpeg_threads=1)
        indices = _frames_within(request.frames, decoder.metadata.num_frames or 0)
        images = decoder.get_frames_at(indices).data.numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        raise DecodeError("decode", f"torchcodec: {first_line(error)}") from error
    return _whole_frames(images, request)


Decoder = Callable[[io.IOBase, ClipRequest], Frames]
DECODERS: dict[str, Decoder] = {"pyav": decode_pyav, "decord": decode_decord, "torchcodec": decode_torchcodec}


_MODULES = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec.decoders"}


def has_decoder(name: str) -> bool:
    """Say whether a decoder is installed; it may still lack libraries that it loads."""
    return importlib.util.find_spec(_MODULES[name].split(".")[0]) is not None


@cache
def load(name: str) -> None:
    """Load a decoder's module and the libraries that it finds.

    Raises:
        RecipeError: if that is not possible.
    """
    try:
        importlib.import_module(_MODULES[name])
    except (ImportError, OSError, RuntimeError, MemoryError) as error:
        raise RecipeError(
            f"data.decoder={name} cannot be loaded ({first_line(error)}); install it, or set data.decoder=auto"
        ) from error


def decode_clip(
    file: io.IOBase, request: ClipRequest, vectors: VectorCollector | None = None, out: Frames | None = None
) -> tuple[Frames, str]:
    """Decode a clip with the decoder that the request names.

    `auto` is PyAV, and decord where PyAV does not know the codec: what PyAV finds damaged, another decoder may pass off
    as sound.

    Args:
        file: the video.
        request: what is wanted of it.
        vectors: shown every frame that PyAV decodes; the other decoders tell nothing of motion.
        out: contiguous memory of the result's shape, which the result may lie in.

    Returns:
        (V, T, size, size, 3) uint8 RGB, and the decoder's name.

    Raises:
        DecodeError: if the video cannot be decoded.
        RecipeError: if the decoder that is named cannot be loaded.
    """
    name = "pyav" if request.decoder == "auto" else request.decoder
    load(name)
    try:
        return (decode_pyav(file, request, vectors, out) if name == "pyav" else DECODERS[name](file, request)), name
    except CodecError:
        if request.decoder != "auto" or not has_decoder("decord"):
            raise
        return _decode_otherwise(file, request)


def _decode_otherwise(file: io.IOBase, request: ClipRequest) -> tuple[Frames, str]:
    try:
        load("decord")
    except RecipeError as error:
        raise CodecError("open", "its codec is not known to PyAV, and decord cannot be loaded") from error
    file.seek(0)
    try:
        return decode_decord(file, request), "decord"
    except DecodeError as error:
        raise CodecError("open", f"its codec is not known to PyAV; {error.reason}") from error


def build_of_decoders(*, augmented: bool = False) -> dict[str, Any]:
    """Return the versions that pixels depend on.

    Args:
        augmented: clips are augmented after decoding.
    """
    libraries = av.library_versions
    build = {
        "pyav": av.__version__,
        "libavcodec": ".".join(map(str, libraries["libavcodec"])),
        "libswscale": ".".join(map(str, libraries["libswscale"])),
    }
    return {**build, **{name: version(name) for name in ("pillow", "timm")}} if augmented else build
