"""The benchmark's masks: ours are the stages', the ordinary way's are masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import optical_flow

from system.benchmark import mask
from system.benchmark.clips import clips, noise
from system.benchmark.conventional_mask import ConventionalMask
from system.benchmark.mask import Work
from system.benchmark.stages import Asked
from system.config import MotionSection
from system.core.clip import token_grid
from system.data.masking import Masker
from system.methods.mgmae import MGMAE, MGMAEOptions
from system.motion.base import motion_source
from system.motion.raft import RAFT

GRID = token_grid(4, 128, 2, 16)
said: list[str] = []
ASKED = Asked("synthetic", "", "cpu", short=True, say=said.append)


@pytest.fixture(scope="module")
def work() -> Work:
    return Work(GRID, clips(ASKED, 2, GRID), noise(2, GRID))


@pytest.fixture(scope="module")
def network() -> optical_flow.RAFT:
    torch.manual_seed(0)
    return optical_flow.raft_small(weights=None).eval()


def test_our_masks_are_those_that_the_stages_make(work: Work) -> None:
    source = motion_source(MotionSection(source="dis"))
    masker = Masker(MGMAE, MGMAEOptions(), source)
    flow = masker.flow(work.frames)
    assert flow is not None
    wanted = MGMAE.mask(work.noise, flow, GRID, MGMAEOptions())
    assert (mask.visible(work, source) == wanted).all()
    assert wanted.sum() == 2 * MGMAE.num_visible(MGMAEOptions(), GRID)


def test_the_ordinary_mask_shows_as_many_tokens_of_every_slot(work: Work, network: optical_flow.RAFT) -> None:
    places = work.places()
    shown = ConventionalMask(network, GRID)(work.frames[0], places[0])
    assert shown.shape == (GRID.tokens,)
    assert (shown.reshape(GRID.slots, -1).sum(1) == len(places[0])).all()


def test_the_ordinary_mask_of_a_still_scene_is_a_tube(network: optical_flow.RAFT) -> None:
    still = Work(GRID, np.repeat(clips(ASKED, 1, GRID)[:, :1], 4, 1), noise(1, GRID))
    last = network.update_block.flow_head.conv2
    weight, bias = last.weight.data, last.bias.data
    last.weight.data, last.bias.data = torch.zeros_like(weight), torch.zeros_like(bias)
    shown = ConventionalMask(network, GRID)(still.frames[0], still.places()[0]).reshape(GRID.slots, -1)
    last.weight.data, last.bias.data = weight, bias
    assert (shown == shown[0]).all()
    assert set(np.flatnonzero(shown[0])) == set(still.places()[0])


def test_both_ways_compute_the_same_flow(work: Work, network: optical_flow.RAFT) -> None:
    gap, size = mask.flow_gap(work.first(1), RAFT(network, 6), ConventionalMask(network, GRID))
    assert size > 0.1
    assert gap < 1e-4


def test_a_short_measurement_has_a_line_for_each_source(tmp_path: Path) -> None:
    lines = {line.name: line for line in mask.measure(replace(ASKED, scratch=str(tmp_path)))}
    assert {"dis", "raft"} <= set(lines)
    assert lines["dis"].limit is not None
    assert lines["raft"].ratio == pytest.approx(lines["raft"].ours / (lines["raft"].conventional or 0))
    assert all(line.stage == "mask" and line.ours > 0 for line in lines.values())
