from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from system.core.gaps import RECORD, Coded, Fields, common, completed, in_steps, painted, places, pushed, steadied
from system.core.vectors import CELL_PX, FINE_PX, rasterized

NAN = complex(np.nan, np.nan)


def records(*rows: tuple[int, ...]) -> NDArray[np.void]:
    return np.array(list(rows), RECORD)


def uniform(*values: complex, shape: tuple[int, int] = (8, 10)) -> Fields:
    """One field a value."""
    return np.stack([np.full(shape, value, np.complex64) for value in values])


def with_object(ground: complex, moving: complex) -> Fields:
    """One gap in which an object of 3 x 3 cells moves across a ground."""
    fields = uniform(ground)
    fields[0, 2:5, 3:6] = moving
    return fields


def blocks(seed: int, rows: int = 4, cols: int = 5) -> NDArray[np.void]:
    """A frame's macroblocks, each cut in one of H.264's ways, some of them intra."""
    generator = np.random.default_rng(seed)
    made = []
    for row, col in np.ndindex(rows, cols):
        width, height = [(16, 16), (16, 8), (8, 16), (8, 8)][generator.integers(4)]
        for top in range(0, 16, height):
            for left in range(0, 16, width):
                at = (16 * col + left + width // 2, 16 * row + top + height // 2)
                made.append((-1, width, height, *at, *generator.integers(-60, 60, 2), 4))
    return records(*(made[index] for index in np.flatnonzero(generator.random(len(made)) < 0.8)))


@pytest.mark.parametrize(("height", "width"), [(64, 80), (60, 72), (57, 65)])
def test_all_gaps_are_painted_as_frame_by_frame(height: int, width: int) -> None:
    frames = [blocks(seed) for seed in range(3)]
    found = painted([Coded(each, stretch) for each, stretch in zip(frames, (1, 4 / 3, 2), strict=True)], height, width)
    for field, each, stretch in zip(found, frames, (1, 4 / 3, 2), strict=True):
        wanted = rasterized(each, height, width) * np.float32(stretch)
        assert np.allclose(field.view(np.float32).reshape(wanted.shape), wanted, rtol=1e-6, equal_nan=True)


def test_vectors_to_the_future_and_what_lies_outside_are_left_out() -> None:
    hostile = [(1, 16, 16, 8, 8, 4, 4, 4), (-1, 16, 16, -32000, 32000, 4, 4, 4), (-1, 255, 0, 8, 8, 2**31 - 1, 0, 0)]
    frames = [records(*hostile), records(*hostile, (-1, 8, 8, 12, 4, -8, 4, 4)), records()]
    found = painted([Coded(each, 1) for each in frames], 32, 40)
    assert np.isnan(found[[0, 2]]).all()
    assert found[1, 0, 1] == -2 + 1j
    assert np.isnan(found[1]).sum() == 19


def filled(fields: Fields) -> Fields:
    out = fields.copy()
    completed(out, np.isnan(out.real))
    return out


def test_what_is_unknown_is_as_in_the_next_gap_that_knows_it_else_as_in_the_one_before() -> None:
    fields = uniform(1, NAN, NAN, 4, NAN)
    assert filled(fields)[:, 0, 0].tolist() == [1, 4, 4, 4, 4]
    fields = uniform(1, 2)
    fields[0, 3, 4] = NAN
    assert filled(fields)[0, 3, 4] == 2


def test_what_no_gap_knows_is_as_the_nearest_in_its_row_or_in_the_nearest_row() -> None:
    fields = uniform(0, 0)
    fields[:, :, 0] = 3
    fields[:, 2, 1:4] = NAN
    fields[:, 5:] = NAN
    found = filled(fields)
    assert found[0, 2, :5].tolist() == [3, 3, 3, 0, 0]
    assert found[1, 5:, :2].tolist() == [[3, 0]] * 3


def test_nothing_known_at_all_stays_so() -> None:
    assert np.isnan(filled(uniform(NAN, NAN))).all()


def test_what_an_encoder_rounds_is_averaged_away_and_real_changes_are_not() -> None:
    fields = uniform(7.0, 7.5, 7.0, 7.5, 2.0)
    steadied(fields)
    found = fields[:, 0, 0].real
    assert found[1] == pytest.approx(7.25)
    assert found[4] == pytest.approx(2.0)
    assert all(abs(x - 7.25) <= 0.25 for x in found[:4])


def test_most_of_a_frame_says_how_it_moves() -> None:
    fields = np.concatenate([with_object(1 - 2j, 9), uniform(NAN)])
    fields[0, 5:] = NAN
    assert common(fields).tolist() == [1 - 2j, 0]


def shown(fields: Fields, *rest: complex) -> Fields:
    """What lies where in the earlier frames."""
    most = np.array(rest, np.complex64)
    return np.concatenate([fields.reshape(-1), most])[pushed(fields, most)]


def test_what_is_pushed_arrives_where_it_came_from_and_leaves_the_ground_behind() -> None:
    there = shown(with_object(0, -16), 0)[0]  # two cells to the left
    assert there.shape == (16, 20)
    assert (there[4:10, 2:8] == -16).all()
    assert (there == 0).sum() == 16 * 20 - 36


def test_an_object_that_came_from_outside_is_not_there_yet() -> None:
    there = shown(with_object(0, -24 - 24j), 0)[0]
    assert (there[:4, :6] == -24 - 24j).sum() == 6 * 4
    assert (there != 0).sum() == 6 * 4


def test_of_two_that_arrive_the_odder_one_is_in_front() -> None:
    fields = uniform(0)
    fields[0, 2, 6], fields[0, 2, 2] = -40, -8
    assert (shown(fields, 0)[0, 4:6, 2:4] == -40).all()


def test_ground_that_moves_as_a_whole_stays_in_its_place() -> None:
    assert (shown(uniform(5 + 3j, -7), 5 + 3j, -7) == np.array([5 + 3j, -7])[:, None, None]).all()


def test_flow_is_in_steps_of_the_clips_px_and_ends_at_its_side() -> None:
    found = in_steps(np.array([1 - 0.25j, 400], np.complex64), 1.5, 2, 224)
    assert found.view(np.int16).reshape(-1, 2).tolist() == [[96, -32], [224 * 64, 0]]


def test_a_place_of_a_grid_lies_in_one_cell() -> None:
    at = np.array([0.0, 7.9, 8.0, 63.9], np.float32)
    assert places(at, at, CELL_PX, 10).tolist() == [[0, 0, 1, 7], [0, 0, 1, 7], [10, 10, 11, 17], [70, 70, 71, 77]]
    assert places(at[:2], at[:1], FINE_PX, 10).tolist() == [[0], [10]]
