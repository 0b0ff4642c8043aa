"""Cutting boxes out of decoded frames and scaling them to RGB squares.

V views of a frame, each (size, size, 3) uint8 RGB. FFmpeg scales, with its bit-exact flags.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from system.data.augment import Box, CropDraw, crop_box

Frames = NDArray[np.uint8]

# Scaling that gives the same pixels on every machine with the same FFmpeg.
SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# Formats whose planes can be cut without converting them first.
_PLANAR = re.compile(r"^(yuvj?4\d\dp|gray|gbrp)(\d\d)?(le|be)?$")


class Scaler:
    """Cuts boxes out of decoded frames and scales them to RGB, planes first, so that little is converted."""

    def __init__(self, crops: Sequence[CropDraw], size: int) -> None:
        self._crops = crops
        self._size = size
        self._reformatters = [VideoReformatter() for _ in crops]
        self._whole = VideoReformatter()

    def boxes(self, frame: av.VideoFrame) -> list[Box]:
        """Return the box of a frame that each view is, moved and cut to whole chroma samples."""
        planar = _PLANAR.match(frame.format.name)
        across = max(1, 64 // max(1, frame.format.chroma_width(64))) if planar else 1
        down = max(1, 64 // max(1, frame.format.chroma_height(64))) if planar else 1
        wanted = [crop_box(draw, frame.width, frame.height, self._size) for draw in self._crops]
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
        if not _PLANAR.match(frame.format.name):
            frame = self._whole.reformat(frame, format="gbrp", interpolation=SCALING, threads=1)
        boxes = self.boxes(frame)
        return np.stack(
            [
                reformatter.reformat(
                    _cut(frame, box), self._size, self._size, "rgb24", interpolation=SCALING, threads=1
                ).to_ndarray()
                for reformatter, box in zip(self._reformatters, boxes, strict=True)
            ]
        )


def _cut(frame: av.VideoFrame, box: Box) -> av.VideoFrame:
    """Copy a box of whole chroma samples of a planar frame."""
    out = av.VideoFrame(box.width, box.height, frame.format.name)
    sample = (frame.format.components[0].bits + 7) // 8
    for source, target in zip(frame.planes, out.planes, strict=True):
        sx, sy = -(-frame.width // source.width), -(-frame.height // source.height)
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
        into = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
        left, top, wide = box.x // sx * sample, box.y // sy, target.width * sample
        into[: target.height, :wide] = rows[top : top + target.height, left : left + wide]
    out.colorspace, out.color_range = colours(frame)
    return out


def colours(frame: av.VideoFrame) -> tuple[int, int]:
    """Return matrix and range of a frame; what the stream does not say is BT.709 from 720 lines on, else BT.601."""
    unspecified, bt709, bt601 = 2, 1, 6
    matrix = frame.colorspace
    if matrix == unspecified:
        matrix = bt709 if frame.height >= 720 else bt601
    return matrix, frame.color_range
