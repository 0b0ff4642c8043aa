"""J and F: answers by hand, and F against a comparison of every pixel with every other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from system.evaluate.mask_scores import (
    ObjectScores,
    Statistics,
    contour,
    contour_accuracy,
    frame_scores,
    object_scores,
    region_similarity,
    statistics,
    summary,
    tolerance_px,
)

Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def square(size: int, top: int, left: int, side: int) -> Mask:
    mask = np.zeros((size, size), np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def test_two_squares_that_overlap_by_half_have_a_third_of_their_union() -> None:
    assert region_similarity(square(20, 4, 4, 6), square(20, 4, 7, 6)) == 18 / 54


def test_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    empty, full = np.zeros((9, 9), np.bool_), square(9, 2, 2, 3)
    assert (region_similarity(empty, empty), contour_accuracy(empty, empty, 1)) == (1, 1)
    assert (region_similarity(full, empty), contour_accuracy(full, empty, 1)) == (0, 0)
    assert (region_similarity(empty, full), contour_accuracy(empty, full, 1)) == (0, 0)


def test_the_tolerance_of_davis_is_eight_pixels() -> None:
    assert tolerance_px(480, 854) == 8  # 0.008 x 979.7 = 7.84
    assert tolerance_px(1080, 1920) == 18  # 0.008 x 2202.9 = 17.62


def test_a_contour_lies_half_a_pixel_towards_the_origin() -> None:
    one = np.zeros((4, 4), np.bool_)
    one[1, 2] = True
    assert np.argwhere(contour(one)).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert contour(square(10, 3, 3, 4)).sum() == 4 * 4  # from (2, 2) to (6, 6): a ring of side 5


def test_the_edge_of_the_frame_is_no_contour() -> None:
    assert not contour(np.ones((5, 5), np.bool_)).any()
    half = np.zeros((4, 4), np.bool_)
    half[:, 2:] = True
    assert np.argwhere(contour(half)).tolist() == [[row, 1] for row in range(4)]


def test_a_line_that_is_moved_matches_within_the_tolerance_only() -> None:
    def left_of(col: int) -> Mask:
        return np.repeat(np.arange(30)[None] < col, 20, 0)

    assert contour_accuracy(left_of(10), left_of(13), 3) == 1
    assert contour_accuracy(left_of(10), left_of(14), 3) == 0


def test_precision_and_recall_make_f() -> None:
    # Both lines of the strip are found, and one of 20 pixels that is not there: precision 2/3, recall 1.
    truth = np.zeros((20, 40), np.bool_)
    truth[:, 5:10] = True
    found = truth.copy()
    found[:, 30:] = True
    assert contour_accuracy(truth, found, 2) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert contour_accuracy(found, truth, 2) == pytest.approx(0.8)


def far_from(one: Mask, other: Mask, within: int) -> float:
    """Share of one's contour that lies within a distance of the other's, pixel by pixel."""
    here, there = np.argwhere(contour(one)), np.argwhere(contour(other))
    distance = np.sqrt(((here[:, None] - there[None]) ** 2).sum(-1)).min(1)
    return float((distance <= within).mean())


@pytest.mark.parametrize("within", [1, 2, 5])
def test_f_is_what_a_comparison_of_all_pixels_gives(within: int) -> None:
    draw = np.random.default_rng(within)
    for _ in range(5):
        truth, found = (np.kron(draw.random((6, 8)) > 0.6, np.ones((5, 5))).astype(np.bool_) for _ in range(2))
        precision, recall = far_from(found, truth, within), far_from(truth, found, within)
        wanted = 2 * precision * recall / (precision + recall)
        assert contour_accuracy(truth, found, within) == pytest.approx(wanted, abs=1e-12)


def test_mean_recall_and_decay_by_hand() -> None:
    # 8 frames: quarters end at round(0, 1.75, 3.5, 5.25, 7) = 0, 2, 4, 5, 7, so the first is frames 0-2, the last 5-7.
    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    found = statistics(values)
    assert found.mean == pytest.approx(0.55)
    assert found.recall == 4 / 8  # 0.5 itself is not found
    assert found.decay == pytest.approx(0.8 - 0.3)


def test_one_scored_frame_has_no_decay() -> None:
    assert statistics([0.7]) == Statistics(0.7, 1.0, 0.0)


def test_a_sequence_above_256_frames_decays_from_its_start_to_its_end() -> None:
    assert statistics(np.linspace(1, 0, 401)).decay == pytest.approx(0.75)


def test_scores_are_those_of_each_object_and_other_numbers_do_not_count() -> None:
    truth, found = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    truth[2:6, 2:6], truth[10:14, 10:14], truth[16:, 16:] = 1, 4, 7
    found[2:6, 2:6], found[10:14, 12:16] = 1, 4
    values = frame_scores(truth, found, (1, 4))
    assert values[0].tolist() == [1, 1]
    assert values[1, 0] == 8 / 24
    first, second = object_scores([values, values, np.zeros((2, 2))])
    # Of three frames the first quarter is frames 0 and 1, the last is frame 2 alone.
    assert (first.region.mean, first.region.recall, first.region.decay) == pytest.approx((2 / 3, 2 / 3, 1))
    assert second.region.mean == pytest.approx(2 / 9)


def test_the_summary_is_the_mean_over_objects() -> None:
    def of(region: float, line: float) -> ObjectScores:
        return ObjectScores(Statistics(region, 1, 0.1), Statistics(line, 0, 0.3))

    figures = summary([of(0.2, 0.4), of(0.4, 0.6), of(0.6, 0.2)])
    assert figures == pytest.approx(
        {
            "J&F-Mean": 0.4,
            "J-Mean": 0.4,
            "J-Recall": 1,
            "J-Decay": 0.1,
            "F-Mean": 0.4,
            "F-Recall": 0,
            "F-Decay": 0.3,
        }
    )
    assert math.isclose(figures["J&F-Mean"], (figures["J-Mean"] + figures["F-Mean"]) / 2)
