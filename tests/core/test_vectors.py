from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from system.core.vectors import (
    CELL_PX,
    Field,
    Span,
    completed,
    filled,
    pushed,
    rasterized,
    regrouped,
    sampled,
    steadied,
    walked,
)

RECORD = np.dtype(
    [
        ("source", "<i4"),
        ("w", "u1"),
        ("h", "u1"),
        ("dst_x", "<i2"),
        ("dst_y", "<i2"),
        ("motion_x", "<i4"),
        ("motion_y", "<i4"),
        ("motion_scale", "<u2"),
    ]
)
CELL = 4


def records(*rows: tuple[int, ...]) -> NDArray[np.void]:
    return np.array(list(rows), RECORD)


def uniform(x: float, y: float, shape: tuple[int, int] = (8, 10)) -> Field:
    return np.full((*shape, 2), (x, y), np.float32)


def unknown(shape: tuple[int, int] = (8, 10)) -> Field:
    return np.full((*shape, 2), np.nan, np.float32)


def with_object(ground: float, moving: float) -> Field:
    """An object of 3 x 3 cells that moves across a ground."""
    field = uniform(ground, 0)
    field[2:5, 3:6, 0] = moving
    return field


def test_blocks_are_painted_where_they_lie_and_in_px() -> None:
    field = rasterized(records((-1, 32, 16, 32, 24, -6, 4, 4)), 64, 80)
    assert field.shape == (8, 10, 2)
    known = ~np.isnan(field[..., 0])
    assert known.sum() == 8
    assert known[2:4, 2:6].all()
    assert (field[known] == (-1.5, 1.0)).all()


def test_vectors_to_the_future_and_what_lies_outside_are_left_out() -> None:
    hostile = records(
        (1, 16, 16, 8, 8, 4, 4, 4), (-1, 16, 16, -32000, 32000, 4, 4, 4), (-1, 255, 0, 8, 8, 2**31 - 1, 0, 0)
    )
    assert np.isnan(rasterized(hostile, 32, 40)).all()
    assert np.isnan(rasterized(hostile[:0], 32, 40)).all()


def test_what_is_pushed_arrives_where_its_motion_takes_it() -> None:
    there = pushed(with_object(0, 2), 4, CELL)  # two cells to the right
    assert (there[2:5, 5:8, 0] == 2).all()
    assert np.isnan(there[2:5, 3:5]).all()
    assert (pushed(with_object(0, 2), -4, CELL)[2:5, 1:4, 0] == 2).all()


def test_what_moves_unlike_the_rest_is_in_front() -> None:
    field = with_object(1, 0)
    assert (pushed(field, 4, CELL)[2:5, 3:6, 0] == 0).all()
    assert (pushed(with_object(0, 1), -4, CELL)[2:5, 2:5, 0] == 1).all()


def test_holes_continue_the_background_and_not_the_object() -> None:
    there = filled(pushed(with_object(0, 2), 4, CELL))
    assert (there[2:5, 5:8, 0] == 2).all()
    assert (there[2:5, 3:5] == 0).all()


def test_nothing_known_at_all_is_no_motion() -> None:
    assert (filled(unknown()) == 0).all()


def test_an_intra_frame_moves_as_what_comes_after_it() -> None:
    spans = [Span(0, 4, uniform(9, 9)), Span(4, 8, unknown()), Span(8, 12, with_object(0, 2))]
    found = completed(spans)[1].velocity
    assert (found[2:5, 2:5, 0] == 2).all()  # where the object was 4 frames before
    assert (found[2:5, 6:] == 0).all()


def test_an_intra_frame_at_the_end_moves_as_what_came_before_it() -> None:
    found = completed([Span(0, 4, with_object(0, 2)), Span(4, 8, unknown())])[1].velocity
    assert (found[2:5, 4:7, 0] == 2).all()
    assert (found[2:5, :3] == 0).all()


def test_an_intra_block_is_filled_in_time_and_not_from_its_neighbours() -> None:
    here = with_object(0, 2)
    here[3, 4] = np.nan
    spans = [Span(0, 4, here), Span(4, 8, pushed(with_object(0, 2), 4))]
    assert completed(spans)[0].velocity[3, 4, 0] == 2


def test_what_an_encoder_rounds_is_averaged_away_and_real_changes_are_not() -> None:
    spans = [Span(4 * i, 4 * i + 4, uniform(x / 4, 0)) for i, x in enumerate((7.0, 7.5, 7.0, 7.5, 2.0))]
    found = [float(span.velocity[0, 0, 0]) * 4 for span in steadied(spans)]
    assert found[1] == pytest.approx(7.25)
    assert found[4] == pytest.approx(2.0)
    assert all(abs(x - 7.25) <= 0.25 for x in found[:4])


def test_a_field_is_looked_up_between_cells_and_beyond_the_border() -> None:
    field = np.stack(np.meshgrid(np.arange(10), np.arange(8)), -1).astype(np.float32)
    points = np.array([[2.0, 2.0], [4.0, 6.0], [-50.0, 3.0], [1e4, 1e4]], np.float32)
    assert sampled(field, points, CELL).tolist() == [[0, 0], [0.5, 1], [0, 0.25], [9, 7]]


@pytest.mark.parametrize(("start", "end"), [(12, 0), (0, 12), (9, 2), (2, 9), (5, 7), (7, 5), (6, 6)])
def test_points_are_followed_through_anchors_and_between_them(start: int, end: int) -> None:
    spans = [Span(0, 4, uniform(1, -0.5)), Span(4, 8, uniform(2, 0)), Span(8, 12, uniform(-1, 1))]
    speeds = [1] * 4 + [2] * 4 + [-1] * 4
    moved = walked(np.array([[20.0, 16.0]], np.float32), spans, start, end) - (20, 16)
    low, high = sorted((start, end))
    wanted = sum(speeds[low:high]) * (1 if end > start else -1)
    assert moved[0, 0] == pytest.approx(wanted, abs=1e-4)


def test_spans_between_other_frames_move_as_far() -> None:
    spans = [Span(0, 4, uniform(1, -0.5)), Span(4, 8, uniform(2, 0)), Span(8, 12, uniform(-1, 1))]
    found = regrouped(spans, [0, 4, 6, 10])
    assert [(span.start, span.stop) for span in found] == [(0, 4), (4, 6), (6, 10)]
    assert found[0] is spans[0]
    assert np.allclose(found[1].velocity, (2, 0), atol=1e-5)
    assert np.allclose(found[2].velocity, (0.5, 0.5), atol=1e-5)


def test_forward_in_time_the_object_is_found_where_it_comes_from() -> None:
    spans = [Span(0, 4, with_object(0, 2))]
    points = np.array([[2.5 * CELL_PX, 3.5 * CELL_PX], [8.5 * CELL_PX, 3.5 * CELL_PX]], np.float32)
    moved = walked(points, spans, 0, 4) - points
    assert moved.tolist() == [[8, 0], [0, 0]]
