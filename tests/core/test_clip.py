from __future__ import annotations

import pytest

from system.core.clip import clip_span, extra_numbers, frame_numbers, start_frame, token_grid


def test_a_clip_of_16_frames_of_224_px_has_1568_tokens() -> None:
    grid = token_grid(16, 224, 2, 16)
    assert (grid.slots, grid.places, grid.tokens, grid.values) == (8, 196, 1568, 1536)
    assert (grid.num_frames, grid.height, grid.width) == (16, 224, 224)


def test_the_start_is_any_frame_from_which_the_span_fits() -> None:
    starts = {start_frame(draw / 1000, 100, clip_span(16, 4)) for draw in range(1000)}
    assert starts == set(range(37))  # 100 - 64 + 1


@pytest.mark.parametrize("video_frames", [1, 10, 63, 64])
def test_a_video_shorter_than_the_span_starts_at_its_beginning(video_frames: int) -> None:
    assert start_frame(0.999, video_frames, clip_span(16, 4)) == 0


def test_a_short_video_repeats_the_last_frame_reached() -> None:
    assert frame_numbers(0, 10, 6, 4) == (0, 4, 8, 8, 8, 8)
    assert frame_numbers(0, 9, 6, 4) == (0, 4, 8, 8, 8, 8)
    assert frame_numbers(0, 1, 3, 4) == (0, 0, 0)


def test_a_long_video_is_walked_in_strides() -> None:
    assert frame_numbers(7, 300, 4, 4) == (7, 11, 15, 19)


def test_a_clip_covers_its_farthest_extra_frame() -> None:
    assert clip_span(16, 4) == 64
    assert clip_span(16, 4, (1, 61)) == 64
    assert clip_span(16, 4, (64,)) == 65


def test_extra_frames_beyond_the_video_repeat_the_last_sampled_one() -> None:
    frames = frame_numbers(0, 10, 4, 3)
    assert frames == (0, 3, 6, 9)
    assert extra_numbers(0, 10, frames[-1], (1, 4, 10, 12)) == (1, 4, 9, 9)
