"""Counts of answers, by hand."""

from __future__ import annotations

import numpy as np

from system.evaluate.tally import Tally, ranked

# Six videos of four classes; the last one could not be read.
LABELS = np.array([0, 0, 1, 1, 2, 0])
VALUES = np.array(
    [
        [0.7, 0.1, 0.1, 0.1],
        [0.2, 0.5, 0.2, 0.1],
        [0.1, 0.6, 0.2, 0.1],
        [0.4, 0.3, 0.2, 0.1],
        [0.1, 0.2, 0.3, 0.4],
        [0.0, 0.0, 0.0, 0.0],
    ]
)
THERE = np.array([True] * 5 + [False])


def test_top_1_per_class_and_confusion_are_what_a_person_counts() -> None:
    tally = Tally(4).take(LABELS, VALUES, THERE)
    # Classes down, answers across, the last column for what was not read.
    assert tally.confusion.tolist() == [[1, 1, 0, 0, 1], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert tally.top1 == 2 / 6
    assert tally.per_class[:3].tolist() == [1 / 3, 1 / 2, 0.0]
    assert np.isnan(tally.per_class[3])
    assert np.isclose(tally.mean_class, (1 / 3 + 1 / 2 + 0) / 3)  # class 3 has no videos
    assert tally.videos == 6


def test_a_video_is_within_five_if_four_classes_at_most_stand_before_its_own() -> None:
    values = np.array([[9.0, 8, 7, 6, 5, 4], [9.0, 8, 7, 6, 5, 4], [4.0, 5, 6, 7, 8, 9]])
    tally = Tally(6).take(np.array([4, 5, 0]), values, np.ones(3, bool))
    assert tally.hits.tolist() == [0, 0, 0, 0, 1, 0]
    assert tally.top5 == 1 / 3
    assert ranked(values)[0].tolist() == [0, 1, 2, 3, 4]


def test_with_fewer_than_five_classes_every_video_that_was_read_is_within_five() -> None:
    assert Tally(4).take(LABELS, VALUES, THERE).top5 == 5 / 6


def test_of_equal_values_the_lower_class_stands_first_and_it_is_counted() -> None:
    values = np.array([[0.4, 0.2, 0.4], [0.2, 0.4, 0.4], [0.5, 0.25, 0.25], [0.0, 0.0, 0.0]])
    tally = Tally(3).take(np.array([2, 1, 0, 1]), values, np.array([True, True, True, False]))
    assert tally.confusion.tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]]
    assert tally.tied == 2


def test_an_answer_that_is_no_number_is_wrong_and_of_no_class() -> None:
    values = np.array([[np.nan] * 3, [0.5, np.inf, 0.1], [0.5, 0.3, 0.2]])
    tally = Tally(3).take(np.array([0, 1, 0]), values, np.ones(3, bool))
    assert tally.confusion.tolist() == [[1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert (tally.top1, tally.top5) == (1 / 3, 1 / 3)


def test_parts_of_a_set_count_as_the_whole() -> None:
    parts, whole = Tally(4), Tally(4).take(LABELS, VALUES, THERE)
    for rows in (slice(0, 2), slice(2, 6)):
        parts.take(LABELS[rows], VALUES[rows], THERE[rows])
    assert (parts.confusion == whole.confusion).all()
    assert (parts.hits == whole.hits).all()
