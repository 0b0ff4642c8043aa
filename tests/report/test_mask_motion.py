from __future__ import annotations

import numpy as np
import pytest

from system.core.clip import TokenGrid, token_grid
from system.report.mask_motion import KEPT, LOST, MaskMotion, carried, lag, landings, mask_motion, strip

# Two slots of 2 x 3 places of 16 px.
GRID = TokenGrid(slots=2, rows=2, cols=3, tubelet_frames=2, patch_px=16)


def moving_right(px: float) -> np.ndarray:
    flow = np.zeros((1, 32, 48, 2), np.float32)
    flow[..., 0] = px
    return flow


def places(*slots: list[int]) -> np.ndarray:
    seen = np.zeros((2, 6), np.bool_)
    for slot, which in enumerate(slots):
        seen[slot, which] = True
    return seen.reshape(-1)


def test_a_token_is_carried_by_the_mean_flow_of_the_patch_around_it() -> None:
    flow = moving_right(0.0)
    flow[0, :16, 16:24] = (8.0, -4.0)  # half of the second patch
    at = carried(flow, GRID)[0]
    assert at[1].tolist() == [24 + 4.0, 8 - 2.0]
    assert at[3:].tolist() == [[8, 24], [24, 24], [40, 24]]


def test_a_token_is_carried_from_slot_to_slot_over_half_of_the_clip() -> None:
    grid = TokenGrid(slots=4, rows=1, cols=4, tubelet_frames=2, patch_px=16)
    flow = np.zeros((3, 16, 64, 2), np.float32)
    flow[..., 0] = np.array([5, 6, 7], np.float32)[:, None, None]
    at = carried(flow, grid)
    assert at[:, 0, 0].tolist() == [8 + 5 + 6, 8 + 6 + 7]
    assert lag(grid) == 2


@pytest.mark.parametrize(
    ("px", "expected"),
    [
        (0.0, [0, 1, 2, 3, 4, 5]),
        (7.5, [0, 1, 2, 3, 4, 5]),
        (8.0, [1, 2, -1, 4, 5, -1]),
        (-40.0, [-1, -1, 0, -1, -1, 3]),
    ],
)
def test_a_token_lands_where_its_centre_is_carried(px: float, expected: list[int]) -> None:
    assert landings(carried(moving_right(px), GRID), GRID)[0].tolist() == expected


def test_a_mask_that_follows_the_motion_keeps_its_tokens_and_a_tube_does_not() -> None:
    follows = mask_motion(places([0, 3], [1, 4]), moving_right(16.0), GRID)
    assert follows == MaskMotion(2, 2, 2, 2, 0, 1 / 3)
    tube = mask_motion(places([0, 3], [0, 3]), moving_right(16.0), GRID)
    assert tube == MaskMotion(2, 0, 2, 0, 2, 1 / 3)


def test_what_leaves_the_frame_does_not_count_and_what_stands_still_does_not_move() -> None:
    leaves = mask_motion(places([2, 0], [1]), moving_right(16.0), GRID)
    assert (leaves.tokens, leaves.kept) == (1, 1)
    still = mask_motion(places([0, 1], [0]), moving_right(0.0), GRID)
    assert (still.tokens, still.kept, still.moving) == (2, 1, 0)
    assert "none of them moves, too few to judge by" in still.told()
    assert "2 of them move, too few" in MaskMotion(8, 4, 2, 1, 1, 0.5).told()


def test_counts_of_clips_add_up() -> None:
    both = MaskMotion(40, 20, 20, 10, 5, 0.25) + MaskMotion(120, 80, 0, 0, 0, 0.5)
    assert both == MaskMotion(160, 100, 20, 10, 5, 0.4375)
    assert both.told() == (
        "62% of the visible tokens are seen again half a clip later; of the 20 that move, 50% (the same place is"
        " visible for 25% of them); by chance it would be 44%"
    )


def test_the_strip_has_a_green_box_where_a_token_is_seen_again_and_a_red_one_where_not() -> None:
    frames = [np.zeros((32, 48, 3), np.uint8)] * 2
    (image,) = strip(frames, places([0, 3], [1]), moving_right(16.0), GRID)
    colours = {tuple(each) for each in image.reshape(-1, 3).tolist()}
    assert KEPT in colours
    assert LOST in colours


def test_a_clip_of_one_slot_has_no_motion_of_its_mask() -> None:
    grid = token_grid(2, 32, 2, 16)
    found = mask_motion(np.ones(grid.tokens, np.bool_), np.zeros((0, 32, 32, 2), np.float32), grid)
    assert found.tokens == 0
