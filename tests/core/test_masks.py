from __future__ import annotations

import numpy as np
import pytest

from system.core.clip import TokenGrid, slot_visible, token_grid
from system.core.masks import Noise, largest, random_visible, running_cell, smallest, top_visible, tube_visible

GRID = token_grid(16, 224, 2, 16)


def draws(clips: int = 3, grid: TokenGrid = GRID) -> Noise:
    return np.random.default_rng(0).random((clips, grid.slots, grid.places), np.float32)


@pytest.mark.parametrize(("ratio", "visible"), [(0.9, 20), (0.75, 49), (0.5, 98), (0.95, 10), (0.6, 79)])
def test_the_count_of_visible_places_is_videomaes(ratio: float, visible: int) -> None:
    assert slot_visible(196, ratio) == visible


def test_a_tube_shows_160_of_1568_tokens_in_the_same_places_of_every_slot() -> None:
    visible = tube_visible(draws(), GRID, 0.9)
    assert visible.sum(1).tolist() == [160, 160, 160]
    slots = visible.reshape(3, 8, 196)
    assert (slots == slots[:, :1]).all()


def test_random_masking_shows_equally_many_in_every_slot_in_other_places() -> None:
    slots = random_visible(draws(), GRID, 0.9).reshape(3, 8, 196)
    assert (slots.sum(2) == 20).all()
    assert (slots[:, 0] != slots[:, 1]).any()


def test_the_smallest_draws_are_shown_and_equal_ones_count_from_the_left() -> None:
    assert smallest(np.array([[0.5, 0.1, 0.1, 0.1]], np.float32), 2).tolist() == [[False, True, True, False]]


def test_the_largest_are_marked_and_equal_ones_from_the_left() -> None:
    assert largest(np.array([[1, 3, 2, 0]], np.float32), 2).tolist() == [[False, True, True, False]]
    assert largest(np.array([[1, 0, 1, 1], [5, 1, 2, 0]], np.float32), 2).tolist() == [
        [True, False, True, False],
        [True, False, True, False],
    ]
    scores = np.random.default_rng(0).integers(0, 9, (8, 196)).astype(np.float32)
    assert (largest(scores, 20) == smallest(-scores, 20)).all()


def test_equal_scores_are_shown_from_the_first_token_on() -> None:
    visible = top_visible(np.ones((1, 2, 5), np.float32), 2)
    assert visible.reshape(2, 5).tolist() == [[True, True, False, False, False]] * 2


def test_the_top_of_a_clip_may_differ_between_slots() -> None:
    scores = np.zeros((1, 2, 4), np.float32)
    scores[0, 1] = 4, 3, 2, 1
    assert top_visible(scores, 2, over_clip=True).reshape(2, 4).sum(1).tolist() == [0, 4]


def test_scores_that_are_no_numbers_show_as_many_tokens() -> None:
    scores = np.random.default_rng(0).random((2, 3, 8)).astype(np.float32)
    scores[0, 1, :6] = np.nan
    assert (top_visible(scores, 4).reshape(2, 3, 8).sum(2) == 4).all()
    with_ties = np.array([[[np.nan, 3, 2, 1], [5, 1, 1, 0]]], np.float32)  # one row has too few, another too many
    assert top_visible(with_ties, 2).reshape(2, 4).sum(1).tolist() == [2, 2]


def test_draws_that_do_not_fit_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"noise must be \(clips, 8, 196\) for this grid, got \(3, 8, 195\)"):
        tube_visible(draws()[:, :, 1:], GRID, 0.9)


def test_a_running_cell_decodes_784_of_1568_tokens_in_four_different_phases() -> None:
    decoded = running_cell(np.arange(8), GRID)
    assert (decoded.sum(1) == 784).all()
    assert (decoded[:4] == decoded[4:]).all()
    assert len({mask.tobytes() for mask in decoded}) == 4


def test_a_running_cell_turns_by_one_place_a_slot() -> None:
    slots = running_cell(np.array([0]), GRID).reshape(8, 14, 14)
    cells = [slots[slot, :2, :2].ravel().tolist() for slot in range(4)]
    assert cells == [
        [False, False, True, True],
        [False, True, True, False],
        [True, True, False, False],
        [True, False, False, True],
    ]
    assert (slots[:, ::2, ::2] == slots[:, :1, :1]).all()  # every cell alike


def test_over_four_slots_each_place_is_decoded_twice_on_an_odd_grid_too() -> None:
    grid = token_grid(8, 112, 2, 16)
    assert (running_cell(np.array([2]), grid).reshape(4, 49).sum(0) == 2).all()


def test_a_running_cell_of_whole_cells_decodes_half_of_every_slot() -> None:
    decoded = running_cell(np.arange(4), token_grid(6, 64, 2, 16)).reshape(4, 3, 16)
    assert (decoded.sum(2) == 8).all()


def test_a_running_cell_refuses_a_grid_of_which_it_would_decode_unequally_much() -> None:
    with pytest.raises(ValueError, match="got 3 x 3 places and 3 slots"):
        running_cell(np.array([0]), token_grid(6, 48, 2, 16))
