"""Sign, scale and direction of every motion source, on scenes whose motion is known, forwards and backwards in time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from system.config import MotionSection
from system.core.pairs import FramePair
from system.data.synthetic import Scene, moving_scene
from system.motion.base import motion_source

SOURCES = [
    MotionSection(source="dis"),
    MotionSection(source="dis", preset="ultrafast"),
    MotionSection(source="dis", preset="fine"),
    MotionSection(source="dis", preset="medium"),
    MotionSection(source="frame_difference"),
]
GAP = 4


def named(motion: MotionSection) -> str:
    return f"{motion.source}-{motion.preset}" if motion.source == "dis" else motion.source


def scene(label: str) -> Scene:
    return moving_scene(3, 0, size=(160, 160), num_frames=24, label=label)


def clip(made: Scene) -> NDArray[np.uint8]:
    return np.stack([made.frame(index) for index in range(0, 24, GAP)])[None]


def moving_error(flow: NDArray[np.float32], made: Scene, pair: FramePair) -> tuple[float, float]:
    """Median error and median true length over what moves, px."""
    true = made.flow(GAP * pair.start, GAP * pair.end)
    length = np.hypot(true[..., 0], true[..., 1])
    moves = length > 0.5
    error = np.hypot(flow[..., 0] - true[..., 0], flow[..., 1] - true[..., 1])
    return float(np.median(error[moves])), float(np.median(length[moves]))


@pytest.mark.parametrize("motion", SOURCES, ids=named)
@pytest.mark.parametrize("label", ["left", "right", "up", "down", "clockwise", "grow", "pan"])
@pytest.mark.parametrize("pair", [FramePair(2, 3), FramePair(3, 2)], ids=["forward", "backward"])
def test_flow_has_the_sign_scale_and_direction_of_the_motion(
    motion: MotionSection, label: str, pair: FramePair
) -> None:
    made = scene(label)
    flow = motion_source(motion)(clip(made), [pair])[0, 0].numpy()
    error, length = moving_error(flow, made, pair)
    assert length > 1
    assert error < 0.6 * length  # no motion is 1 length, a wrong sign 2, a swapped axis 1.4


@pytest.mark.parametrize("motion", SOURCES, ids=named)
def test_what_does_not_move_has_no_flow(motion: MotionSection) -> None:
    flow = motion_source(motion)(clip(scene("still")), [FramePair(0, 1)]).numpy()
    assert np.abs(flow).max() < 0.01


@pytest.mark.parametrize("motion", SOURCES, ids=named)
def test_pairs_and_clips_keep_their_order(motion: MotionSection) -> None:
    source = motion_source(motion)
    frames = np.concatenate([clip(scene("left")), clip(scene("up"))])
    pairs = [FramePair(0, 1), FramePair(3, 2)]
    both = source(frames, pairs)
    assert both.shape == (2, 2, 160, 160, 2)
    for place in range(2):
        for number, pair in enumerate(pairs):
            alone = source(frames[place : place + 1], [pair])[0, 0]
            assert (both[place, number] == alone).all()
