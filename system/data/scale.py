"""Cutting boxes out of decoded frames and scaling them to RGB squares.

V views of a frame, each (size, size, 3) uint8 RGB. FFmpeg scales, with its bit-exact flags.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from system.data.augment import Box, Crop, box_of

Frames = NDArray[np.uint8]

# Scaling that gives the same pixels on every machine with the same FFmpeg.
SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# Formats whose planes can be cut without converting them first.
_PLANAR = re.compile(r"^(yuvj?4\d\dp|gray|gbrp)(\d\d)?(le|be)?$")


@dataclass(slots=True)
class _Window:
    """A view's box in frames of one size and format.

    Attributes:
        picture: a frame of the box's size that is filled again and again.
        parts: per plane, which rows and bytes of the source's go to which of the picture's: (source, target) as slices.
        into: per plane, the rows of the picture.
        first: scales planes, where that is a step of its own.
        scaler: scales to RGB; both keep what they have computed for the box's size.
    """

    picture: av.VideoFrame
    into: list[Frames]
    parts: list[tuple[tuple[slice, slice], tuple[slice, slice]]]
    first: VideoReformatter
    scaler: VideoReformatter


class Scaler:
    """Cuts boxes out of decoded frames and scales them to RGB, planes first, so that little is converted."""

    def __init__(self, crops: Sequence[Crop], size: int) -> None:
        self._crops = crops
        self._size = size
        self._whole = VideoReformatter()
        self._seen: tuple[int, int, str] | None = None
        self._windows: list[_Window] = []

    def boxes(self, frame: av.VideoFrame) -> list[Box]:
        """Return the box of a frame that each view is, moved and cut to whole chroma samples."""
        planar = _PLANAR.match(frame.format.name)
        across = max(1, 64 // max(1, frame.format.chroma_width(64))) if planar else 1
        down = max(1, 64 // max(1, frame.format.chroma_height(64))) if planar else 1
        wanted = [box_of(crop, frame.width, frame.height, self._size) for crop in self._crops]
        return [
            Box(
                box.x // across * across,
                box.y // down * down,
                max(across, box.width // across * across),
                max(down, box.height // down * down),
            )
            for box in wanted
        ]

    def views(self, frame: av.VideoFrame) -> Frames:
        """(V, size, size, 3) uint8."""
        out = np.empty((len(self._crops), self._size, 3 * self._size), np.uint8)
        self.cut(frame, out)
        return out.reshape(len(self._crops), self._size, self._size, 3)

    def cut(self, frame: av.VideoFrame, out: Frames) -> None:
        """Put the views of a frame into (V, size, 3 * size) uint8: rows of pixels."""
        kind = (frame.width, frame.height, frame.format.name)
        if not _PLANAR.match(kind[2]):
            frame = self._whole.reformat(frame, format="gbrp", interpolation=SCALING, threads=1)
        if kind != self._seen:
            self._windows, self._seen = [_window(frame, box) for box in self.boxes(frame)], kind
        matrix, color_range = colours(frame)
        planes = [_rows(plane) for plane in frame.planes]
        for window, view in zip(self._windows, out, strict=True):
            for rows, into, (source, target) in zip(planes, window.into, window.parts, strict=True):
                into[target] = rows[source]
            window.picture.colorspace, window.picture.color_range = matrix, color_range
            scaled = self._scaled(window)
            view[:] = _rows(scaled.planes[0])[:, : view.shape[1]]

    def _scaled(self, window: _Window) -> av.VideoFrame:
        """Return a window's picture as (size, size) RGB.

        FFmpeg has no quick code for several lines to one of RGB, but for several lines to one of planes: the same
        pixels in two steps take a quarter less time then. Not so for two lines to one, which it rounds otherwise.
        """
        picture, size = window.picture, self._size
        if picture.height > size and picture.format.name == "yuv420p":
            matrix, color_range = picture.colorspace, picture.color_range
            picture = window.first.reformat(
                picture, size, size, "yuv422p", dst_color_range=color_range, interpolation=SCALING, threads=1
            )
            picture.colorspace, picture.color_range = matrix, color_range
        return window.scaler.reformat(picture, size, size, "rgb24", interpolation=SCALING, threads=1)


def _rows(plane: VideoPlane) -> Frames:
    """Return a plane's rows as bytes, without copying them."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)


def _window(frame: av.VideoFrame, box: Box) -> _Window:
    """Prepare to copy a box of whole chroma samples of a planar frame."""
    picture = av.VideoFrame(box.width, box.height, frame.format.name)
    sample = (frame.format.components[0].bits + 7) // 8
    parts = []
    for source, target in zip(frame.planes, picture.planes, strict=True):
        sx, sy = -(-frame.width // source.width), -(-frame.height // source.height)
        left, top, wide = box.x // sx * sample, box.y // sy, target.width * sample
        parts.append(
            (
                (slice(top, top + target.height), slice(left, left + wide)),
                (slice(0, target.height), slice(0, wide)),
            )
        )
    return _Window(picture, [_rows(plane) for plane in picture.planes], parts, VideoReformatter(), VideoReformatter())


def colours(frame: av.VideoFrame) -> tuple[int, int]:
    """Return matrix and range of a frame; what the stream does not say is BT.709 from 720 lines on, else BT.601."""
    unspecified, bt709, bt601 = 2, 1, 6
    matrix = frame.colorspace
    if matrix == unspecified:
        matrix = bt709 if frame.height >= 720 else bt601
    return matrix, frame.color_range
