"""Motion of generated clips: the truth, motion vectors, estimates."""

from __future__ import annotations

import torch

from system.core.pairs import FramePair
from system.data.scene_set import ClipShape, make_scene_set
from system.evaluate.scene_motion import scene_motion, source_for
from system.methods import METHODS

SCENES = make_scene_set(0, 20, ClipShape(4, 2, 64))


def test_motion_vectors_say_roughly_what_moves_where() -> None:
    pairs = [FramePair(1, 2)]
    truth, vectors = scene_motion("truth")(SCENES, pairs), scene_motion("codec")(SCENES, pairs)
    assert vectors.shape == truth.shape
    still = torch.zeros_like(truth)
    moving = truth.norm(dim=-1) > 1
    assert (vectors - truth).norm(dim=-1)[moving].mean() < 0.7 * (still - truth).norm(dim=-1)[moving].mean()


def test_dis_estimates_the_true_motion() -> None:
    pairs = [FramePair(1, 2)]
    error = (scene_motion("dis")(SCENES, pairs) - scene_motion("truth")(SCENES, pairs)).norm(dim=-1)
    assert error.median() < 0.25


def test_a_method_that_reads_bitstreams_is_given_vectors() -> None:
    assert source_for(METHODS["mgm"], "dis") == "codec"
    assert source_for(METHODS["mgmae"], "dis") == "dis"
