from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from system.core.clip import token_grid
from system.core.pairs import FramePair
from system.data.decode import ClipRequest
from system.data.job import Video
from system.methods.mgmae import MGMAE, MGMAEOptions
from system.report.motion_clips import Flow, MotionClip
from system.report.motion_table import (
    TRUTH,
    Estimate,
    Scores,
    Visible,
    compare,
    end_point_errors,
    of_frames,
    overlap,
    table,
)

GRID = token_grid(4, 64, 2, 16)
OPTIONS = MGMAEOptions(mask_ratio=0.5)


def moving(x: float, y: float = 0.0) -> Flow:
    """Flow of a scene that moves as a whole from each frame to the next, for MGMAE's pairs."""
    directions = [pair.end - pair.start for pair in MGMAE.pairs(OPTIONS, 4)]
    return np.stack([np.full((64, 64, 2), (sign * x, sign * y), np.float32) for sign in directions])


def clip(truth: Flow | None, seed: int = 0) -> MotionClip:
    frames = np.full((4, 64, 64, 3), seed, np.uint8)
    noise = np.random.default_rng(seed).random((1, GRID.slots, GRID.places), np.float32)
    video = Video(0, (), lambda _start, _stop: b"")
    return MotionClip(f"{seed}.mp4", video, ClipRequest((0, 4, 8, 12), (), 64), frames, noise, truth)


def masked(of: MotionClip, flow: torch.Tensor) -> Visible:
    return MGMAE.mask(of.noise, flow, GRID, OPTIONS).reshape(-1)


def says(flow: Flow, seconds: float = 0.0) -> object:
    return lambda _clip: Estimate(flow, seconds)


def scores(truth: Flow | None, reference: str, **sources: Flow) -> Scores:
    made = Scores(reference)
    named = {name: says(flow) for name, flow in sources.items()}
    for compared in compare([clip(truth, seed) for seed in (1, 2)], named, masked):  # type: ignore[arg-type]
        made.add(compared)
    return made


def test_the_truth_agrees_with_itself() -> None:
    line = scores(moving(16), TRUTH, same=moving(16)).lines()["same"]
    assert line.error_px == 0
    assert line.moving_error_px == 0
    assert line.agreement == 1


def test_a_known_shift_has_the_known_error() -> None:
    assert (end_point_errors(moving(10) + np.array([3, 4], np.float32), moving(10)) == 5).all()
    line = scores(moving(10), TRUTH, off=moving(10) + np.array([3, 4], np.float32)).lines()["off"]
    assert line.error_px == 5
    assert line.moving_error_px == 5


def test_errors_of_what_moves_leave_out_what_is_still() -> None:
    truth = moving(0)
    truth[:, :16] = moving(8)[:, :16]  # a quarter of the px
    line = scores(truth, TRUTH, blind=moving(0)).lines()["blind"]
    assert line.error_px == 2
    assert line.moving_error_px == 8


def test_where_nothing_moves_there_is_no_error_of_what_moves() -> None:
    line = scores(moving(0), TRUTH, right=moving(0)).lines()["right"]
    assert line.error_px == 0
    assert line.moving_error_px is None


def test_masks_of_a_source_that_goes_the_wrong_way_overlap_less() -> None:
    lines = scores(moving(16), TRUTH, near=moving(15), wrong=moving(-16)).lines()
    assert lines["near"].agreement is not None
    assert lines["wrong"].agreement is not None
    assert lines["wrong"].agreement < lines["near"].agreement <= 1


def test_without_the_truth_masks_are_compared_with_another_source() -> None:
    lines = scores(None, "best", best=moving(16), wrong=moving(-16)).lines()
    assert lines["best"].error_px is None
    assert lines["best"].agreement == 1
    assert lines["wrong"].agreement != 1


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [([1, 1, 0, 0], [1, 0, 1, 0], 1 / 3), ([1, 0], [1, 0], 1), ([0, 0], [0, 0], 1), ([1, 0], [0, 1], 0)],
)
def test_overlap_is_intersection_over_union(one: Sequence[int], other: Sequence[int], wanted: float) -> None:
    assert overlap(np.array(one, bool), np.array(other, bool)) == pytest.approx(wanted)


def test_seconds_are_the_median_over_the_clips() -> None:
    seconds = iter([9.0, 1.0, 2.0])
    made = Scores(TRUTH)
    source = {"slow": lambda _clip: Estimate(moving(1), next(seconds))}
    for compared in compare([clip(moving(1), seed) for seed in range(3)], source, masked):
        made.add(compared)
    assert made.lines()["slow"].seconds == 2
    assert made.clips == 3


def test_a_source_without_meaning_has_its_cost_alone() -> None:
    made = Scores(TRUTH)
    source = {"random": lambda _clip: Estimate(moving(9), 0.25)}
    for compared in compare([clip(moving(1))], source, masked, meaningless=["random"]):
        assert list(compared.flows) == [TRUTH]
        made.add(compared)
    assert "| random | 250.0   | -         | -" in table(made.lines(), TRUTH)


def test_the_table_names_what_masks_are_compared_with() -> None:
    text = table(scores(None, "best", best=moving(16)).lines(), "best")
    head, _line, row = text.splitlines()
    assert "mask overlap with best" in head
    assert row.split("|")[1].strip() == "best"
    assert row.split("|")[-2].strip() == "1.000"
    assert len({len(each) for each in text.splitlines()}) == 1


def test_a_source_of_frames_is_given_one_clip_and_timed() -> None:
    ticks = count()
    given: list[tuple[int, ...]] = []

    def source(frames: NDArray[np.uint8], pairs: Sequence[FramePair]) -> torch.Tensor:
        given.append(frames.shape)
        return torch.ones(1, len(pairs), 64, 64, 2)

    estimate = of_frames(source, MGMAE.pairs(OPTIONS, 4), lambda: float(next(ticks)))(clip(None))
    assert given == [(1, 4, 64, 64, 3)]
    assert estimate.flow.shape == (3, 64, 64, 2)
    assert estimate.seconds == 1
