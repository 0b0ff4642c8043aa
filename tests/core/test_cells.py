from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from system.core.cells import carried_scores, displacements, fits
from system.core.clip import token_grid
from system.core.masks import Visible, largest
from system.core.seeds import Purpose, generator
from system.core.warp import carry, cube_scores, drawn_places, gaussian_map, on_pixels

GRID = token_grid(16, 224, 2, 16)
CELLS, COUNT, BASE = 56, 20, 8


def drawn(draw: int) -> Visible:
    return drawn_places(generator(1, Purpose.MASK, position=draw).random((1, 8, 196), np.float32), COUNT)


def still(cells: int = CELLS) -> NDArray[np.float32]:
    return np.zeros((1, 15, cells, cells, 2), np.float32)


def shifted(x: float, y: float) -> NDArray[np.float32]:
    """Flow toward the base frame of a scene that moves by so many px a frame."""
    flow = still()
    flow[:, :BASE], flow[:, BASE:] = (x, y), (-x, -y)
    return flow


def by_px(places: Visible, flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """What warp.py makes of the same flow, in units of a cell."""
    maps = carry(
        gaussian_map(torch.from_numpy(places), GRID), on_pixels(torch.from_numpy(flow), GRID.height, GRID.width), BASE
    )
    return np.asarray(cube_scores(maps, GRID).numpy() / (224 / CELLS) ** 2, np.float32)


def overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    a, b = largest(one, COUNT), largest(other, COUNT)
    return float((a & b).sum() / (a | b).sum())


def test_without_motion_scores_are_those_of_warping() -> None:
    places = drawn(0)
    assert np.allclose(carried_scores(places, still(), BASE, GRID), by_px(places, still()), atol=0.3)  # of 27
    assert (largest(carried_scores(places, still(), BASE, GRID), COUNT) == places[:, None]).all()


@pytest.mark.parametrize(("x", "y"), [(3.3, 1.7), (-2.5, 6.9), (0.4, -0.7)])
def test_what_moves_as_a_whole_has_the_masks_of_warping(x: float, y: float) -> None:
    flow = shifted(x, y)
    found = [overlap(carried_scores(drawn(draw), flow, BASE, GRID), by_px(drawn(draw), flow)) for draw in range(8)]
    assert np.mean(found) >= 0.9  # px by px a hole ends within a cell


@pytest.mark.parametrize("base", [0, 5, 15])
def test_a_cell_is_followed_to_the_base_frame(base: int) -> None:
    flow = np.zeros((15, CELLS, CELLS, 2), np.float32)
    flow[:base], flow[base:] = (3, -1), (-3, 1)
    found = displacements(flow, base, 224)
    for frame in (0, base, 15):
        assert found[frame, 28, 28] * 4 == pytest.approx(np.array([3, -1]) * (base - frame), abs=1e-4)


def test_holes_have_the_base_frames_value_or_none() -> None:
    places, flow = drawn(1), shifted(0, 0)
    flow[:, BASE:] = (-500, 0)
    filled = carried_scores(places, flow, BASE, GRID)
    assert np.allclose(filled[:, 5:], carried_scores(places, still(), BASE, GRID)[:, 5:])
    assert (carried_scores(places, flow, BASE, GRID, fill_holes=False)[:, 5:] == 0).all()


def test_flow_beyond_all_bounds_is_a_hole() -> None:
    flow = still()
    flow[0, 0] = 1e30
    assert np.isfinite(carried_scores(drawn(0), flow, BASE, GRID)).all()


def test_masks_of_motion_that_changes_from_place_to_place_are_nearly_those_of_warping() -> None:
    ys, xs = np.mgrid[:CELLS, :CELLS].astype(np.float32) / CELLS - 0.5
    flow = still()
    flow[..., 0], flow[..., 1] = 6 * xs + 2 * ys, 6 * ys - 2 * xs + 3
    flow[:, BASE:] *= -1
    found = [overlap(carried_scores(drawn(draw), flow, BASE, GRID), by_px(drawn(draw), flow)) for draw in range(8)]
    assert np.mean(found) >= 0.93


def test_several_clips_are_those_alone() -> None:
    places, flow = np.concatenate([drawn(0), drawn(1)]), np.concatenate([shifted(3, 1), shifted(-9, 4)])
    both = carried_scores(places, flow, BASE, GRID)
    for clip in (0, 1):
        assert (both[clip] == carried_scores(places[clip : clip + 1], flow[clip : clip + 1], BASE, GRID)[0]).all()


def test_a_place_must_be_whole_cells() -> None:
    assert fits(28, GRID)
    assert not fits(28, token_grid(16, 224, 2, 14))
