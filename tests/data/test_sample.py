from __future__ import annotations

from pathlib import Path

import pytest

from system import storage
from system.data.assemble import clip_bytes, clip_maker, limits_of
from system.data.dataset import ensure_index
from system.data.sample import decoded_sample, spread_slots
from system.data.sandbox import Sandbox
from system.data.sources import build_index
from system.errors import DecodeError
from tests.small import tiny_recipe


def test_slots_of_a_sample_are_one_of_each_equal_part_of_the_index() -> None:
    slots = spread_slots(1_000_000, 50, seed=3)
    assert sorted(slot // 20_000 for slot in slots) == list(range(50))
    assert slots != sorted(slots)
    assert slots == spread_slots(1_000_000, 50, seed=3)
    assert slots != spread_slots(1_000_000, 50, seed=4)


@pytest.mark.parametrize("videos", [1, 7, 50])
def test_an_index_of_few_videos_gives_several_draws_of_each(videos: int) -> None:
    assert sorted(spread_slots(videos, 50, seed=0)) == list(range(50))


def test_a_sample_tells_the_outcome_of_every_clip_in_its_order(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "data.uri=synthetic://moving?videos=4&frames=16&height=48&width=48")
    folder = Path(ensure_index(recipe)).parent
    own = str(tmp_path / "own.parquet")
    build_index(str(folder), own)
    maker = clip_maker(recipe, own)
    choices = [maker.choose(slot) for slot in range(4)]
    storage.delete([choices[1].video.uri])
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
