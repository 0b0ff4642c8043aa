"""Test views and samplers, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from system.core.views import (
    SquareCrop,
    Views,
    dense_clips,
    dense_training_frames,
    merged,
    segment_clips,
    segment_training_frames,
)


def test_five_dense_clips_of_300_frames_start_evenly_among_every_fourth_frame() -> None:
    # 75 frames are taken; 59 places are left for a window of 16: starts 0, 14.75, 29.5, 44.25, 59.
    clips = dense_clips(300, 16, 4, 5)
    assert [clip[0] // 4 for clip in clips] == [0, 14, 29, 44, 59]
    assert clips[0] == tuple(range(0, 64, 4))
    assert clips[4] == tuple(range(236, 300, 4))


def test_a_dense_clip_of_a_short_video_repeats_its_last_taken_frame() -> None:
    # Of 10 frames 0, 4 and 8 are taken.
    assert dense_clips(10, 5, 4, 2) == ((0, 4, 8, 8, 8),) * 2


def test_one_dense_clip_is_the_middle_one() -> None:
    assert dense_clips(10, 4, 1, 1) == ((3, 4, 5, 6),)


def test_two_segment_clips_have_the_segments_starts_and_their_middles() -> None:
    # Four segments of 2.5 frames: starts 0, 2.5, 5, 7.5 and middles 1.25, 3.75, 6.25, 8.75.
    assert segment_clips(10, 4, 2) == ((0, 2, 5, 7), (1, 3, 6, 8))


def test_one_segment_clip_has_the_middles() -> None:
    assert segment_clips(10, 4, 1) == ((1, 3, 6, 8),)


def test_segments_of_less_than_a_frame_repeat_frames() -> None:
    assert segment_clips(2, 4, 2) == ((0, 0, 1, 1), (0, 0, 1, 1))


def test_segment_frames_stay_inside_of_every_video() -> None:
    assert all(min(clip) >= 0 and max(clip) < n for n in range(1, 70) for clip in segment_clips(n, 16, 2))


def test_a_dense_training_clip_spreads_16_points_over_64_frames_and_not_over_60() -> None:
    clip = dense_training_frames(0.5, 164, 16, 4)
    # Start 50; 64 / 15 = 4.27 apart; the last point is 114, of which the last frame of the span is taken.
    assert clip == (50, 54, 58, 62, 67, 71, 75, 79, 84, 88, 92, 96, 101, 105, 109, 113)


def test_a_dense_training_clip_never_leaves_its_video() -> None:
    assert max(dense_training_frames(1 - 1e-9, 65, 16, 4)) == 63
    for n in range(1, 140):
        for draw in (0.0, 0.5, 1 - 1e-9):
            assert len(clip := dense_training_frames(draw, n, 16, 4)) == 16
            assert min(clip) >= 0 and max(clip) < n


def test_a_dense_training_clip_of_a_short_video_ends_with_its_last_frame() -> None:
    # 12 // 4 = 3 points over the 12 frames: 0, 6, 12, of which 11 is the last; then 11 again.
    assert dense_training_frames(0.7, 12, 5, 4) == (0, 6, 11, 11, 11)


def test_a_segment_training_clip_takes_a_drawn_frame_of_each_segment() -> None:
    # Segments of 10 // 4 = 2 frames; the last two frames are in none.
    assert segment_training_frames([0.0, 0.5, 0.99, 0.49], 10) == (0, 3, 5, 6)


def test_a_segment_training_clip_of_a_video_with_fewer_frames_than_segments_is_its_first_frame() -> None:
    assert segment_training_frames([0.9] * 4, 3) == (0, 0, 0, 0)


def test_merging_takes_the_softmax_of_each_view_before_the_mean() -> None:
    # Softmax of (ln 3, 0) is (3/4, 1/4), of (0, ln 9) it is (1/10, 9/10): the mean is (17/40, 23/40).
    logits = np.log(np.array([[[3.0, 1.0], [1.0, 9.0]]]))
    assert merged(logits, np.ones((1, 2), bool)) == pytest.approx(np.array([[0.425, 0.575]]))


def test_a_large_logit_of_one_view_does_not_outvote_two_others() -> None:
    logits = np.array([[[100.0, 0.0], [0.0, 2.0], [0.0, 2.0]]])
    assert logits.mean(1).argmax() == 0
    assert merged(logits, np.ones((1, 3), bool)).argmax() == 1


def test_a_view_that_was_not_seen_does_not_count_and_a_video_without_any_has_no_answer() -> None:
    logits = np.log(np.array([[[3.0, 1.0], [1.0, 9.0]]] * 2))
    told = merged(logits, np.array([[True, False], [False, False]]))
    assert told == pytest.approx(np.array([[0.75, 0.25], [0.0, 0.0]]))


def test_views_are_clips_times_crops() -> None:
    views = Views("segments", 2, 3)
    assert views.count == 6
    assert views.frames(10, 4, 7) == ((0, 2, 5, 7), (1, 3, 6, 8))
    assert views.squares() == (SquareCrop(0, 3), SquareCrop(1, 3), SquareCrop(2, 3))
    assert str(views) == "segments 2x3"
    assert Views("dense", 1, 1).frames(10, 2, 3) == ((3, 6),)
