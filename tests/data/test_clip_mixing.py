from __future__ import annotations

import numpy as np
import pytest
import torch

from system.data.augment import Box
from system.data.clip_mixing import Mixing, cut_box, cutmix, mixup
from system.data.scale import Frames


def pair(one: int = 100, other: int = 201, frames: int = 3, side: int = 8) -> tuple[Frames, Frames]:
    shape = (frames, side, side, 3)
    return np.full(shape, one, np.uint8), np.full(shape, other, np.uint8)


def test_mixup_averages_both_clips_of_a_pair_with_the_share_that_it_says() -> None:
    """A quarter of 100 and three quarters of 201 are 175.75; the other way round 125.25."""
    one, other = pair()
    assert mixup(one, other, 0.25) == 0.25
    assert set(one.ravel()) == {176}
    assert set(other.ravel()) == {125}


@pytest.mark.parametrize("values", [(0, 255), (255, 255), (255, 0), (0, 0)])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999, 1.0])
def test_mixup_goes_from_one_end_of_a_byte_to_the_other(values: tuple[int, int], share: float) -> None:
    one, other = pair(*values)
    kept = mixup(one, other, share)
    assert abs(kept - share) <= 0.5 / 256
    assert abs(one[0, 0, 0, 0] - (kept * values[0] + (1 - kept) * values[1])) <= 0.5
    assert abs(other[0, 0, 0, 0] - (kept * values[1] + (1 - kept) * values[0])) <= 0.5


def test_a_cut_has_sides_of_the_root_of_what_is_given_away() -> None:
    """1 - 0.75 is a quarter of the area: half of each side, round the middle of 200 x 100 px."""
    assert cut_box(0.75, 0.5, 0.5, 100, 200) == Box(50, 25, 100, 50)


def test_a_cut_at_the_edge_is_cut_off_there() -> None:
    assert cut_box(0.75, 0.0, 0.99, 100, 200) == Box(0, 74, 50, 26)
    assert cut_box(0.0, 0.5, 0.5, 100, 200) == Box(0, 0, 200, 100)


def test_cutmix_exchanges_the_same_rectangle_in_all_frames_and_says_the_true_share() -> None:
    """26 x 50 of 100 x 200 px are 6.5 %."""
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 256, (3, 100, 200, 3), np.uint8) for _ in range(2))
    was, others = one.copy(), other.copy()
    box = Box(0, 74, 50, 26)
    assert cutmix(one, other, box) == pytest.approx(1 - 0.065)
    inside = np.zeros((100, 200), np.bool_)
    inside[74:, :50] = True
    assert (one[:, inside] == others[:, inside]).all()
    assert (other[:, inside] == was[:, inside]).all()
    assert (one[:, ~inside] == was[:, ~inside]).all()
    assert (other[:, ~inside] == others[:, ~inside]).all()


def test_timms_mixing_of_clips_would_cut_frames_out_and_leave_the_width_whole() -> None:
    """Why it is not used: of (B, C, T, H, W) it cuts T and H, and reckons the share of H and W."""
    from timm.data.mixup import Mixup  # slow to import

    mixing = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, num_classes=2)  # type: ignore[no-untyped-call]
    seen = set()
    for seed in range(10):
        clips = torch.zeros(2, 3, 16, 16, 16)
        clips[1] = 1
        np.random.seed(seed)
        mixed, _ = mixing(clips, torch.tensor([0, 1]))
        cut = mixed[0, 0] == 1  # (T, H, W)
        assert (cut.any(2) == cut.all(2)).all()  # whole rows, from the left to the right
        seen.add(len({frame.numpy().tobytes() for frame in cut}))
    assert 2 in seen  # and not the same in all frames


def test_shares_of_pairs_that_are_mixed_and_cut_are_kept() -> None:
    kinds = []
    for seed in range(1500):
        one, other = pair(frames=1)
        share = Mixing(0.8, 1.0, 0.6, 0.25)(one, other, np.random.default_rng(seed))
        cut = share < 1 and set(one.ravel()) <= {100, 201}
        kinds.append("no" if share == 1 else "cut" if cut else "up")
    assert 0.36 < kinds.count("no") / 1500 < 0.46  # a cut may be smaller than a pixel
    assert 0.10 < kinds.count("cut") / 1500 < 0.17
    assert 0.40 < kinds.count("up") / 1500 < 0.50


def test_mixup_shares_are_betas() -> None:
    """Beta(0.8, 0.8) has the mean 1/2 and the variance 1/10.4."""
    shares = [Mixing(0.8, 0.0, 1.0, 0.5)(*pair(side=1), np.random.default_rng(seed)) for seed in range(3000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / 10.4, rel=0.06)


@pytest.mark.parametrize("mixing", [Mixing(0, 0, 1, 0.5), Mixing(0.8, 1, 0, 0.5)])
def test_where_nothing_is_mixed_clips_stay_as_they_are(mixing: Mixing) -> None:
    one, other = pair()
    assert mixing(one, other, np.random.default_rng(0)) == 1
    assert (one == 100).all() and (other == 201).all()


@pytest.mark.parametrize(("mixup_alpha", "cutmix_alpha"), [(0.8, 0.0), (0.0, 1.0)])
def test_the_share_is_that_of_the_pixels(mixup_alpha: float, cutmix_alpha: float) -> None:
    for seed in range(20):
        one, other = pair(0, 255)
        share = Mixing(mixup_alpha, cutmix_alpha, 1.0, 0.5)(one, other, np.random.default_rng(seed))
        assert one.mean() / 255 == pytest.approx(1 - share, abs=0.003)
        assert other.mean() / 255 == pytest.approx(share, abs=0.003)
