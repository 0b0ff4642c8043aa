"""Motion of generated clips: the truth, the truth in blocks, estimates."""

from __future__ import annotations

import torch

from system.core.pairs import FramePair, pairs_toward
from system.data.scene_set import ClipShape, make_scene_set
from system.evaluate.scene_motion import scene_motion, source_for
from system.methods import METHODS

SCENES = make_scene_set(0, 20, ClipShape(4, 2, 64))
PAIRS = pairs_toward(2, 4)


def test_blocks_have_one_vector_each_in_quarters_of_a_pixel_near_the_truth() -> None:
    truth, blocks = scene_motion("truth")(SCENES, PAIRS), scene_motion("blocks")(SCENES, PAIRS)
    assert torch.equal(blocks * 4, (blocks * 4).round())
    corner = blocks[:, :, ::8, ::8]
    assert torch.equal(blocks, corner.repeat_interleave(8, 2).repeat_interleave(8, 3))
    assert (blocks - truth).abs().median() <= 0.125


def test_dis_estimates_the_true_motion() -> None:
    pairs = [FramePair(1, 2)]
    error = (scene_motion("dis")(SCENES, pairs) - scene_motion("truth")(SCENES, pairs)).norm(dim=-1)
    assert error.median() < 0.25


def test_a_method_that_reads_bitstreams_is_given_blocks() -> None:
    assert source_for(METHODS["mgm"], "dis") == "blocks"
    assert source_for(METHODS["mgmae"], "dis") == "dis"
