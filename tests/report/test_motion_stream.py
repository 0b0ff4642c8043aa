from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from system.config import MotionSection
from system.data.augment import CropDraw
from system.data.dataset import ensure_index
from system.data.decode import ClipRequest
from system.data.job import Video
from system.motion.base import motion_source
from system.report import motion_stream
from system.report.motion_clips import MotionClip, motion_clips
from system.report.motion_comparison import comparison_recipe
from system.report.motion_stream import of_stream
from system.report.motion_table import Estimate, end_point_errors, of_frames


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion_stream, "REPEATS", 1)


def refuse(*told: object) -> None:
    raise AssertionError(told)


def test_flow_of_the_stream_is_that_of_the_clips_own_crop(tmp_path: Path) -> None:
    data = "synthetic://moving?videos=1&frames=32&height=96&width=128"  # one that moves to the left
    recipe = comparison_recipe(data, str(tmp_path), num_frames=4, size=64, stride=4, mask_ratio=0.5)
    (clip,) = motion_clips(recipe, ensure_index(recipe), 1, refuse)
    pairs = recipe.record.pairs(recipe.method, 4)
    fallback = of_frames(motion_source(MotionSection(source="dis")), pairs, lambda: 0.0)
    flow = of_stream(pairs, fallback, refuse)(clip).flow
    assert clip.truth is not None
    moves = np.hypot(clip.truth[..., 0], clip.truth[..., 1]) > 1
    assert moves.sum() > 100
    length = np.hypot(clip.truth[..., 0], clip.truth[..., 1])[moves]
    assert np.median(end_point_errors(flow, clip.truth)[moves]) < 0.5 * np.median(length)


def video_without_vectors() -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        for shade in range(0, 160, 10):
            image = np.full((64, 64, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


def test_a_stream_without_vectors_is_the_fallbacks_and_told() -> None:
    data = video_without_vectors()
    request = ClipRequest((0, 4, 8, 12), (CropDraw(0, 0),), 32)
    video = Video(len(data), ((0, data),), lambda start, stop: data[start:stop])
    clip = MotionClip(
        "plain.avi", video, request, np.zeros((4, 32, 32, 3), np.uint8), np.zeros((1, 2, 4), np.float32), None
    )
    wanted = Estimate(np.ones((1, 32, 32, 2), np.float32), 0.5)
    told: list[str] = []
    assert of_stream([(0, 1)], lambda _clip: wanted, told.append)(clip) is wanted  # type: ignore[list-item]
    assert told == ["plain.avi has no motion vectors: codec is its fallback there"]
