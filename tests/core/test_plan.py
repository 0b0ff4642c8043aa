from __future__ import annotations

import hashlib

import numpy as np
import pytest

from system.core.plan import EpochPlan, cells_of, fitting_ranks, step_layout


@pytest.mark.parametrize("num_videos", [1, 7, 64, 2048, 2049, 10_000])
@pytest.mark.parametrize("window", [1, 100, 4096])
def test_every_epoch_takes_each_video_once(num_videos: int, window: int) -> None:
    plan = EpochPlan(num_videos, seed=3, group_videos=256, window_videos=window)
    for epoch in range(2):
        videos = plan.videos(epoch * num_videos, (epoch + 1) * num_videos)
        assert sorted(videos) == list(range(num_videos))


def test_two_epochs_and_two_seeds_have_different_orders() -> None:
    plan, other = EpochPlan(500, 0, 64, 128), EpochPlan(500, 1, 64, 128)
    assert (plan.videos(0, 500) != plan.videos(500, 1000)).any()
    assert (plan.videos(0, 500) != other.videos(0, 500)).any()


def test_any_part_of_the_sequence_can_be_made_alone() -> None:
    plan = EpochPlan(100, 0, 16, 32)
    whole = plan.videos(0, 350)
    for start, stop in ((0, 1), (95, 205), (99, 101), (340, 350)):
        assert (plan.videos(start, stop) == whole[start:stop]).all()


def test_a_window_stays_inside_few_row_groups() -> None:
    plan = EpochPlan(100_000, 0, group_videos=100, window_videos=400)
    groups = plan.videos(0, 400) // 100
    assert len(set(groups)) == 4


def test_spares_are_a_function_of_slot_and_attempt() -> None:
    plan = EpochPlan(1000, 0, 64, 128)
    spares = [plan.spare(slot, attempt) for slot in range(20) for attempt in (1, 2, 3)]
    assert spares == [plan.spare(slot, attempt) for slot in range(20) for attempt in (1, 2, 3)]
    assert len(set(spares)) > 50


def test_ten_million_videos_cost_nothing_to_plan() -> None:
    plan = EpochPlan(10_000_000, 0, 2048, 16_384)
    last = plan.videos(9_999_990, 10_000_010)
    assert len(last) == 20
    assert last.max() < 10_000_000


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 7, 16])
@pytest.mark.parametrize("max_clips", [2, 6, 48])
def test_the_blocks_of_a_step_hold_its_slots_once_and_in_order(ranks: int, max_clips: int) -> None:
    layout = step_layout(16, views=2, num_ranks=ranks, max_clips=max_clips)
    for step in (0, 5):
        first = layout.first_block(step)
        blocks = [layout.block(first + part) for part in range(layout.blocks_per_step)]
        slots = [slot for block in blocks for slot in range(block.start, block.stop)]
        assert slots == list(range(16 * step, 16 * (step + 1)))
        assert {block.num_slots for block in blocks} == {layout.slots_per_block}
        assert {block.step for block in blocks} == {step}
    assert layout.clips_per_block <= max(max_clips, 2)


def test_a_world_size_that_divides_has_no_padding() -> None:
    assert step_layout(512, 4, 8).padding == 0
    assert step_layout(16, 1, 3).padding == pytest.approx(2 / 18)


def test_worker_counts_that_fit_are_near_the_one_that_does_not() -> None:
    fits = fitting_ranks(16, 0.25, around=11)
    assert 8 in fits
    assert 11 not in fits
    assert all(1 - 16 / (-(-16 // ranks) * ranks) <= 0.25 for ranks in fits)


RANKS_AND_MOST = [(1, 64), (4, 2), (5, 2), (7, 3), (8, 8), (9, 8), (65, 64), (512, 64)]


@pytest.mark.parametrize(("ranks", "most"), RANKS_AND_MOST)
def test_cells_hold_every_rank_once_and_their_sizes_differ_by_one_at_most(ranks: int, most: int) -> None:
    cells = cells_of(ranks, most)
    assert [rank for cell in cells for rank in range(cell.first, cell.first + cell.size)] == list(range(ranks))
    sizes = {cell.size for cell in cells}
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert {cell.largest for cell in cells} == {max(sizes)}
    assert len(cells) == -(-ranks // most)


@pytest.mark.parametrize(("ranks", "most"), RANKS_AND_MOST)
def test_dealing_out_a_cells_blocks_gives_each_rank_what_one_stream_would(ranks: int, most: int) -> None:
    for cell in cells_of(ranks, most):
        own = range(cell.before(3 * ranks), cell.before(8 * ranks))
        for place in range(cell.size):
            dealt = [cell.number(number) for number in own[place :: cell.size]]
            assert dealt == list(range(3 * ranks + cell.first + place, 8 * ranks, ranks))
        assert [cell.before(cell.number(number)) for number in own] == list(own)


@pytest.mark.parametrize("amount", [1, 2, 3, 8, 100])
def test_what_cells_share_is_shared_out_whole_and_none_of_them_is_left_without(amount: int) -> None:
    for ranks, most in RANKS_AND_MOST[:-1]:
        shares = [cell.share(amount) for cell in cells_of(ranks, most)]
        assert min(shares) >= 1
        assert sum(shares) == max(amount, len(shares))
        assert max(shares) - min(shares) <= 1


def test_an_empty_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one video"):
        EpochPlan(0, 0, 1, 1)


def test_the_plan_is_what_it_was() -> None:
    """The order of a run may never change between versions: these are its first videos, written down once."""
    plan = EpochPlan(1000, 0, 256, 512)
    assert plan.videos(0, 8).dtype == np.int64
    assert plan.videos(0, 8).tolist() == GOLDEN


# Made by `EpochPlan(1000, 0, 256, 512).videos(0, 8)` in the project's first version.
GOLDEN = [847, 25, 966, 209, 243, 40, 848, 37]


@pytest.mark.parametrize(
    ("plan", "start", "stop", "digest"),
    [
        (EpochPlan(10_000_000, 0, 2048, 16_384), 0, 2048, "438b512dd4da5e61"),
        (EpochPlan(10_000_000, 0, 2048, 16_384), 9_999_000, 10_001_048, "af12c14e098faa7c"),
        (EpochPlan(10_000_000, 0, 2048, 16_384), 123_456_789, 123_458_837, "cef4de6c3f2bf264"),
        (EpochPlan(1000, 7, 64, 128), 0, 3000, "16be1f90fbcc4912"),
        (EpochPlan(100_000, 1, 2048, 500_000), 0, 100_000, "4b37a2f2f336dbf6"),
    ],
)
def test_the_plans_of_large_sets_are_what_they_were(plan: EpochPlan, start: int, stop: int, digest: str) -> None:
    videos = plan.videos(start, stop).astype("<i8").tobytes()
    assert hashlib.sha256(videos).hexdigest()[:16] == digest


def test_the_spares_of_large_sets_are_what_they_were() -> None:
    plan = EpochPlan(10_000_000, 0, 2048, 16_384)
    assert [plan.spare(slot, attempt) for slot in (0, 9_999_999) for attempt in (1, 2, 3)] == SPARES


# Made by the project's first version too.
SPARES = [2607332, 8637991, 5669448, 626681, 3962469, 7395360]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("max_clips", [1, 6, 48])
def test_slots_that_stay_together_lie_in_the_same_block(ranks: int, max_clips: int) -> None:
    layout = step_layout(18, views=2, num_ranks=ranks, max_clips=max_clips, unit=2)
    blocks = [layout.block(number) for number in range(2 * layout.blocks_per_step)]
    assert [slot for block in blocks for slot in range(block.start, block.stop)] == list(range(36))
    assert all(block.start % 2 == 0 and block.stop % 2 == 0 for block in blocks)
    assert layout.clips_per_block <= max(max_clips, 4)


def test_a_step_that_does_not_hold_whole_pairs_has_no_layout() -> None:
    with pytest.raises(ValueError, match="a step of 15 slots is no multiple of 2"):
        step_layout(15, 1, 2, unit=2)


def test_rank_counts_that_fit_are_those_whose_layout_wastes_little_with_pairs_too() -> None:
    fits = fitting_ranks(16, 0.25, around=4, unit=2)
    assert all(step_layout(16, 1, ranks, unit=2).padding <= 0.25 for ranks in fits)
    assert 7 not in fitting_ranks(16, 0.25, around=7, unit=2)  # 8 pairs: 7 ranks take 2 each
