from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from system.data.augment import CropDraw
from system.data.scale import SCALING, Frames, Scaler, colours

CROPS = (CropDraw(0, 4), CropDraw(6, 1))


def noise(width: int, height: int, pix_fmt: str, seed: int) -> av.VideoFrame:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p10le", "gbrp", "rgb24", "nv12"])
def test_a_scaler_keeps_nothing_of_the_frames_before(pix_fmt: str) -> None:
    scaler = Scaler(CROPS, 48)
    for seed, (width, height) in enumerate(((96, 64), (96, 64), (80, 96), (96, 64))):
        frame = noise(width, height, pix_fmt, seed)
        assert (scaler.views(frame) == Scaler(CROPS, 48).views(frame)).all(), seed


def test_views_are_put_where_they_are_wanted() -> None:
    frame = noise(96, 64, "yuv420p", 0)
    out = np.zeros((2, 3, 48, 144), np.uint8)
    Scaler(CROPS, 48).cut(frame, out[:, 1])
    assert (out[:, 1].reshape(2, 48, 48, 3) == Scaler(CROPS, 48).views(frame)).all()
    assert not out[:, ::2].any()


@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("matrix", [1, 2, 5, 9])
@pytest.mark.parametrize("height", [50, 64, 98])
def test_two_steps_give_the_pixels_of_one(height: int, matrix: int, color_range: int) -> None:
    frame = noise(96, height, "yuv420p", 1)
    frame.colorspace, frame.color_range = matrix, color_range
    scaler = Scaler((CropDraw(0, 0),), 48)
    (box,) = scaler.boxes(frame)
    picture = av.VideoFrame.from_ndarray(_cut_420(frame, 96, height, box.width, box.height), "yuv420p")
    picture.colorspace, picture.color_range = colours(frame)
    one = VideoReformatter().reformat(picture, 48, 48, "rgb24", interpolation=SCALING, threads=1)
    assert (scaler.views(frame)[0] == one.to_ndarray()).all()


def _cut_420(frame: av.VideoFrame, width: int, height: int, wide: int, high: int) -> Frames:
    """Cut the upper left corner out of the planes of a 4:2:0 picture, which lie below each other."""
    planes = np.asarray(frame.to_ndarray(), np.uint8)
    parts, at = [], 0
    for step in (1, 2, 2):
        rows, columns = -(-height // step), width // step
        plane = planes.reshape(-1)[at : at + rows * columns].reshape(rows, columns)
        parts.append(plane[: high // step, : wide // step].reshape(-1))
        at += rows * columns
    return np.concatenate(parts).reshape(-1, wide)
