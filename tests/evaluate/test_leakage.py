"""Leakage of masks: known answers on still, moving and hidden content."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from system.core.clip import token_grid
from system.core.masks import random_visible, tube_visible
from system.core.pairs import pairs_toward
from system.data.scene_set import ClipShape, make_scene_set
from system.evaluate.leakage import leakage, leaked_share, slot_pairs
from system.methods.mgmae import MGMAEOptions, carried_mask

GRID = token_grid(8, 64, 2, 8)


def noise(clips: int = 4) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).random((clips, GRID.slots, GRID.places), np.float32)


def rightward(px_per_slot: float, clips: int = 4) -> Tensor:
    """The flow of a scene that moves to the right, for every two slots."""
    flow = torch.zeros(clips, len(slot_pairs(GRID)), GRID.height, GRID.width, 2)
    for number, pair in enumerate(slot_pairs(GRID)):
        flow[:, number, ..., 0] = (pair.end - pair.start) / GRID.tubelet_frames * px_per_slot
    return flow


def test_a_tube_over_a_still_clip_leaks_nothing() -> None:
    visible = torch.from_numpy(tube_visible(noise(), GRID, 0.75))
    assert leakage(visible, rightward(0), GRID).tolist() == [0, 0, 0, 0]


def test_places_drawn_anew_over_a_still_clip_leak_unless_they_are_hidden_in_every_other_slot() -> None:
    visible = torch.from_numpy(random_visible(noise(64), GRID, 0.75))
    expected = 1 - 0.75 ** (GRID.slots - 1)
    assert abs(float(leakage(visible, rightward(0, 64), GRID).mean()) - expected) < 0.01


def test_a_tube_leaks_exactly_what_a_translation_carries_into_its_visible_places() -> None:
    visible = torch.zeros(1, GRID.slots, GRID.rows, GRID.cols, dtype=torch.bool)
    visible[..., 3] = True  # one column of places is seen in every slot
    share = leaked_share(visible.flatten(1), rightward(8, 1), GRID).view(GRID.slots, GRID.rows, GRID.cols)
    # One place a slot to the right: column 3 - k is seen k slots later, column 3 + k was seen k slots before.
    for slot in range(GRID.slots):
        seen = {3 + slot - other for other in range(GRID.slots) if other != slot}
        for col in range(GRID.cols):
            assert (share[slot, :, col] == (1.0 if col in seen else 0.0)).all()


def test_half_a_place_of_motion_shows_half_of_a_token() -> None:
    visible = torch.zeros(1, GRID.slots, GRID.rows, GRID.cols, dtype=torch.bool)
    visible[:, 1, :, 4] = True  # seen in the second slot only
    share = leaked_share(visible.flatten(1), rightward(4, 1), GRID).view(GRID.slots, GRID.rows, GRID.cols)
    assert share[0, 0, 3:5].tolist() == [0.5, 0.5]
    assert share[0, 0, 2] == share[0, 0, 5] == 0


def test_what_another_object_hides_does_not_leak() -> None:
    visible = torch.from_numpy(random_visible(noise(2), GRID, 0.75))
    flow = rightward(0, 2)
    hidden_from_sight = torch.zeros(flow.shape[:-1], dtype=torch.bool)
    assert leakage(visible, flow, GRID, hidden_from_sight).tolist() == [0, 0]


def test_content_that_leaves_the_frame_does_not_leak() -> None:
    visible = torch.from_numpy(random_visible(noise(2), GRID, 0.75))
    assert leakage(visible, rightward(2 * GRID.width, 2), GRID).tolist() == [0, 0]


def test_a_mask_that_follows_the_true_motion_leaks_less_than_a_tube() -> None:
    scenes = make_scene_set(3, 40, ClipShape(8, 2, 64))
    flow, sight = scenes.flow(slot_pairs(GRID)), scenes.in_sight(slot_pairs(GRID))
    options = MGMAEOptions(mask_ratio=0.75)
    tube = torch.from_numpy(tube_visible(noise(40), GRID, 0.75))
    moving = torch.from_numpy(carried_mask(noise(40), scenes.flow(pairs_toward(4, 8)), GRID, options))
    by_tube, by_motion = (float(leakage(visible, flow, GRID, sight).mean()) for visible in (tube, moving))
    assert by_motion < by_tube
