"""Sets of generated clips: their true motion, what is in sight, and that looks say nothing about the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from system.core.pairs import FramePair
from system.data.scene_set import LABELS, ClipShape, clip_scene, load_scene_set, make_scene_set, save_scene_set

SHAPE = ClipShape(num_frames=4, stride=2, size=32, extra=(8, 9))


def test_the_flow_of_a_set_is_that_of_its_scenes() -> None:
    scenes = make_scene_set(1, len(LABELS), SHAPE)
    flow = scenes.flow([FramePair(0, 3), FramePair(2, 1)]).numpy()
    for index in range(len(LABELS)):
        scene = clip_scene(1, index, SHAPE)
        assert np.allclose(flow[index, 0], scene.flow(0, 6), atol=1e-4)
        assert np.allclose(flow[index, 1], scene.flow(4, 2), atol=1e-4)


def test_what_is_in_sight_looks_the_same_at_both_ends() -> None:
    scenes = make_scene_set(2, len(LABELS), SHAPE)
    pair = FramePair(1, 2)
    flow, sight = scenes.flow([pair])[:, 0].numpy(), scenes.in_sight([pair])[:, 0].numpy()
    ys, xs = np.mgrid[:32, :32]
    errors = {True: [], False: []}  # type: dict[bool, list[float]]
    for index in range(len(scenes)):
        x = np.rint(xs + flow[index, ..., 0]).astype(int).clip(0, 31)
        y = np.rint(ys + flow[index, ..., 1]).astype(int).clip(0, 31)
        gap = np.abs(scenes.frames[index, 1].astype(float) - scenes.frames[index, 2][y, x]).mean(-1)
        for state in (True, False):
            errors[state] += gap[sight[index] == state].tolist()
    assert np.median(errors[True]) < 3 < np.median(errors[False])


def test_labels_take_turns_and_the_extra_frames_go_on_where_the_clip_ends() -> None:
    scenes = make_scene_set(3, 14, SHAPE)
    assert np.bincount(scenes.labels).tolist() == [2] * len(LABELS)
    scene = clip_scene(3, 4, SHAPE)
    assert (scenes.extra_at([9])[4, 0] == scene.frame(9)).all()
    with pytest.raises(ValueError, match=r"extra frames at \[8, 9\], not at \[3\]"):
        scenes.extra_at([3, 8])


def test_opposite_motions_show_the_same_kinds_of_frames() -> None:
    """Where the object is in the middle of a clip does not depend on the label."""
    scenes = make_scene_set(4, 400, ClipShape(3, 2, 32))
    columns = np.arange(32)
    share = (scenes.owner[:, 1] == 1).mean(1)  # (n, W)
    centre = (share * columns).sum(1) / share.sum(1).clip(1e-6)
    left, right = (centre[scenes.labels == LABELS.index(name)].mean() for name in ("left", "right"))
    assert abs(left - right) < 3


def test_a_set_that_is_written_is_read_back(tmp_path: Path) -> None:
    scenes = make_scene_set(5, 3, SHAPE)
    save_scene_set(scenes, tmp_path / "set")
    again = load_scene_set(tmp_path / "set")
    assert (again.frames == scenes.frames).all()
    assert np.allclose(again.flow([FramePair(0, 1)]), scenes.flow([FramePair(0, 1)]))
    assert again.extra_offsets.tolist() == [8, 9]


def test_brighter_and_darker_objects_are_as_frequent_and_say_nothing_about_the_label() -> None:
    scenes = make_scene_set(6, 210, ClipShape(3, 2, 32))
    on, off = scenes.owner[:, 1] == 1, scenes.owner[:, 1] == 0
    seen = np.flatnonzero(on.any((1, 2)) & off.any((1, 2)))
    grey = scenes.frames[:, 1].astype(float).mean(-1)
    brighter = np.array([grey[clip][on[clip]].mean() > grey[clip][off[clip]].mean() for clip in seen])
    assert 0.4 < brighter.mean() < 0.6
    for label in range(len(LABELS)):
        assert 0.2 < brighter[scenes.labels[seen] == label].mean() < 0.8
