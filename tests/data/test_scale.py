from __future__ import annotations

import av
import numpy as np
import pytest

from system.data.augment import CropDraw
from system.data.scale import Scaler

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
