"""MGMAE's masks move with the scene, in both directions of time; the release's do not, and its switch says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from system.config import MotionSection
from system.core.clip import token_grid
from system.core.masks import Noise, Visible, tube_visible
from system.core.seeds import Purpose, generator
from system.data.synthetic import texture
from system.methods.mgmae import MGMAEOptions, num_visible
from system.methods.mgmae import carried_mask as mask
from system.methods.mgmae import carried_pairs as pairs
from system.motion.base import motion_source

GRID = token_grid(16, 224, 2, 16)
CORRECTED = MGMAEOptions()
RELEASE = MGMAEOptions(direction="release", visible_count="release")


def draws(clips: int = 1) -> Noise:
    return np.random.default_rng(4).random((clips, 8, 196), np.float32)


def panning(px: int, seed: int) -> NDArray[np.uint8]:
    """A clip whose whole content moves `px` to the right from one sampled frame to the next: (1, 16, 224, 224, 3)."""
    room = 15 * abs(px)
    wide = texture(generator(seed, Purpose.SYNTHETIC, position=2000), 224, 224 + room)
    starts = [room - time * px if px > 0 else -time * px for time in range(16)]
    return np.stack([wide[:, start : start + 224] for start in starts])[None]


def true_flow(px: float, options: MGMAEOptions, clips: int = 1) -> torch.Tensor:
    """The flow of such clips for the pairs that the options ask for."""
    signs = torch.tensor([pair.end - pair.start for pair in pairs(options, 16)], dtype=torch.float32)
    flow = torch.zeros(clips, 15, 224, 224, 2)
    flow[..., 0] = px * signs[None, :, None, None]
    return flow


def followed(visible: Visible, direction: int) -> NDArray[np.float64]:
    """For each slot, the share of the base slot's visible tokens still in view that are visible where they moved.

    The scene moves one place a slot, to the right for `direction` 1 and to the left for -1; over all clips given.
    """
    slots = visible.reshape(-1, 8, 14, 14)
    shares = []
    for slot in range(8):
        shift = (slot - 4) * direction
        expected = np.zeros_like(slots[:, 0])
        if shift >= 0:
            expected[:, :, shift:] = slots[:, 4, :, : 14 - shift]
        else:
            expected[:, :, :shift] = slots[:, 4, :, -shift:]
        shares.append((slots[:, slot] & expected).sum() / expected.sum())
    return np.array(shares)


@pytest.mark.parametrize("direction", [1, -1], ids=["right", "left"])
def test_the_mask_moves_one_place_a_slot_both_ways_in_time_with_the_true_flow(direction: int) -> None:
    visible = mask(draws(20), true_flow(8 * direction, CORRECTED, 20), GRID, CORRECTED)
    assert followed(visible, direction).min() >= 0.9


@pytest.mark.parametrize("direction", [1, -1], ids=["right", "left"])
def test_the_mask_moves_one_place_a_slot_both_ways_in_time_with_dis(direction: int) -> None:
    source = motion_source(MotionSection(source="dis"))
    flow = torch.cat([source(panning(8 * direction, seed), pairs(CORRECTED, 16)) for seed in range(10)])
    assert followed(mask(draws(10), flow, GRID, CORRECTED), direction).min() >= 0.9


def test_the_release_moves_against_the_scene_before_the_base_frame() -> None:
    shares = followed(mask(draws(20), true_flow(8, RELEASE, 20), GRID, RELEASE), 1)
    assert shares[:3].max() < 0.4  # by chance a tenth
    assert shares[4:].min() >= 0.85


def test_a_static_clip_is_a_tube() -> None:
    noise = draws(10)
    visible = mask(noise, torch.zeros(10, 15, 224, 224, 2), GRID, CORRECTED)
    assert (visible == tube_visible(noise, GRID, 0.9)).all()


def test_the_releases_19_places_of_a_static_clip_are_among_the_20_that_were_drawn() -> None:
    visible = mask(draws(5), torch.zeros(5, 15, 224, 224, 2), GRID, RELEASE).reshape(5, 8, 196)
    tube = tube_visible(draws(5), GRID, 0.9).reshape(5, 8, 196)
    assert (visible <= tube).all()  # always among the drawn places
    assert (visible.sum(2) == 19).all()


@pytest.mark.parametrize(("options", "tokens"), [(CORRECTED, 160), (RELEASE, 152)])
def test_the_counts_are_videomaes_or_the_releases(options: MGMAEOptions, tokens: int) -> None:
    assert num_visible(options, GRID) == tokens
    assert mask(draws(2), torch.zeros(2, 15, 224, 224, 2), GRID, options).sum(1).tolist() == [tokens] * 2


def test_the_middle_of_16_frames_is_frame_8_and_the_release_asks_for_the_wrong_pairs_before_it() -> None:
    corrected, release = pairs(CORRECTED, 16), pairs(RELEASE, 16)
    assert corrected[7] == (7, 8)
    assert corrected[8] == (9, 8)
    assert release[7] == (8, 7)
    assert release[8:] == corrected[8:]


def test_from_the_first_frame_all_flow_points_back() -> None:
    assert pairs(MGMAEOptions(base_frame="first"), 4) == ((1, 0), (2, 1), (3, 2))


@pytest.mark.parametrize("options", [MGMAEOptions(initial_map="places"), MGMAEOptions(hole_filling="none")])
def test_the_other_switches_keep_the_count(options: MGMAEOptions) -> None:
    flow = 6 * torch.randn(2, 15, 224, 224, 2, generator=torch.Generator().manual_seed(0))
    assert mask(draws(2), flow, GRID, options).sum(1).tolist() == [160, 160]


def test_the_top_of_the_whole_clip_keeps_the_count_of_the_clip() -> None:
    flow = 6 * torch.randn(1, 15, 224, 224, 2, generator=torch.Generator().manual_seed(0))
    visible = mask(draws(1), flow, GRID, MGMAEOptions(top="clip"))
    assert visible.sum() == 160
    assert len(set(visible.reshape(8, 196).sum(1))) > 1
