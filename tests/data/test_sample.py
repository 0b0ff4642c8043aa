from __future__ import annotations

from pathlib import Path

import pytest

from system.data.assemble import clip_bytes, clip_maker, limits_of
from system.data.dataset import ensure_index
from system.data.sample import decoded_sample, spread_slots
from system.data.sandbox import Sandbox
from system.errors import DecodeError
from tests.small import index_elsewhere, tiny_recipe


def test_slots_of_a_sample_are_one_of_each_equal_part_of_the_index() -> None:
    slots = spread_slots(1_000_000, 50, seed=3)
    assert sorted(slot // 20_000 for slot in slots) == list(range(50))
    assert slots != sorted(slots)
    assert slots == spread_slots(1_000_000, 50, seed=3)
    assert slots != spread_slots(1_000_000, 50, seed=4)


@pytest.mark.parametrize("videos", [1, 7, 50])
def test_an_index_of_few_videos_gives_several_draws_of_each(videos: int) -> None:
    assert sorted(spread_slots(videos, 50, seed=0)) == list(range(50))


def test_a_sample_tells_the_outcome_of_every_clip_in_its_order(generated: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(generated)
    whole = clip_maker(recipe, ensure_index(recipe))
    gone = whole.choose(1).video_id
    maker = clip_maker(recipe, index_elsewhere(recipe, tmp_path / "own.parquet", {gone: tmp_path / "gone.mp4"}))
    choices = [maker.choose(slot) for slot in range(4)]
    sandbox = Sandbox(clip_bytes(recipe), limits_of(recipe))
    try:
        found = [
            (each.choice, isinstance(each.outcome, DecodeError), each.num_bytes, each.decode_s)
            for each in decoded_sample(maker, choices, sandbox)
        ]
    finally:
        sandbox.close()
    assert [choice for choice, *_ in found] == choices
    assert [bad for _, bad, *_ in found] == [False, True, False, False]
    assert [size for _, _, size, _ in found] == [
        0 if number == 1 else choice.video.num_bytes for number, choice in enumerate(choices)
    ]
    assert [took > 0 for *_, took in found] == [True, False, True, True]
