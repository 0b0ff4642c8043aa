from __future__ import annotations

from pathlib import Path

import pytest

from system.chaos.copies import copy_here, damage, index_copies, put
from system.chaos.damage import DAMAGES, Damage, choose, damage_for_certain, damaged, decodes, starts
from system.data.assemble import clip_bytes, clip_maker, limits_of
from system.data.dataset import ensure_index
from system.data.index import Index
from system.data.sandbox import Sandbox
from system.errors import RecipeError
from tests.small import tiny_recipe

DATA = bytes(range(1, 201))


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_keeps_the_size_and_grows_with_its_share(kind: Damage) -> None:
    half, most = (damaged(DATA, kind, amount, 0) for amount in (0.5, 0.9))
    assert len(half) == len(most) == len(DATA)
    assert half[:20] == DATA[:20]
    changed = [sum(a != b for a, b in zip(DATA, each, strict=True)) for each in (half, most)]
    assert 90 <= changed[0] <= 100
    assert 160 <= changed[1] <= 180
    assert damaged(DATA, kind, 1.0, 0)[:20] != DATA[:20]


def test_each_damage_lies_where_its_name_says() -> None:
    middle, random_bytes, tail = (damaged(DATA, kind, 0.5, 0) for kind in DAMAGES)
    assert middle == DATA[:50] + bytes(100) + DATA[150:]
    assert random_bytes[:50] + random_bytes[150:] == DATA[:50] + DATA[150:]
    assert random_bytes != damaged(DATA, "random bytes", 0.5, 1)
    assert tail == DATA[:100] + bytes(100)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.001, 1), (0.02, 2), (1.0, 100)])
def test_a_share_above_nothing_damages_at_least_one_video(share: float, count: int) -> None:
    chosen = choose(100, share, 0)
    assert len(set(chosen)) == count
    assert chosen == choose(100, share, 0)
    assert all(0 <= video < 100 for video in chosen)


@pytest.mark.parametrize("kind", DAMAGES)
def test_nothing_of_a_damaged_video_decodes(generated: Path, kind: Damage) -> None:
    recipe = tiny_recipe(generated)
    index_uri = ensure_index(recipe)
    maker, row = clip_maker(recipe, index_uri), Index(index_uri).row(3)
    whole = Path(row.uri).read_bytes()
    sandbox = Sandbox(clip_bytes(recipe), limits_of(recipe))
    try:
        assert decodes(sandbox, maker, row, whole)
        wrong, amount = damage_for_certain(sandbox, maker, row, whole, kind, 0)
        assert len(wrong) == len(whole)
        assert 0 < amount <= 1
        assert not decodes(sandbox, maker, row, wrong)
    finally:
        sandbox.close()


def test_clips_are_tried_from_a_videos_first_frame_to_its_last(generated: Path) -> None:
    row = Index(ensure_index(tiny_recipe(generated))).row(0)
    assert starts(row, 8) == [0, 2, 3, 5, 6, 8]
    assert starts(row, 99) == [0]


def test_the_copies_are_damaged_and_the_originals_are_not(tmp_path: Path, generated: Path) -> None:
    originals = ensure_index(tiny_recipe(generated))
    recipe = tiny_recipe(tmp_path, f"data.uri={originals}", "data.max_bad_ratio=0.2")
    before = {row.name: Path(row.uri).read_bytes() for row in Index(originals)}
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    copied = copy_here(recipe, here, lambda _: None)
    put(copied, str(there))
    index = index_copies(copied, str(there))
    said: list[str] = []
    names = damage(recipe, index, 0.1, 0, said.append)
    assert len(names) == len(said) == 2
    assert {row.name: Path(row.uri).read_bytes() for row in Index(originals)} == before
    for row, original in zip(Index(index), Index(originals), strict=True):
        data = Path(row.uri).read_bytes()
        assert Path(row.uri).parent == there
        assert len(data) == row.num_bytes == original.num_bytes
        assert (data == before[original.name]) == (row.name not in names)
        assert (row.label, row.key_frames) == (original.label, original.key_frames)


def test_more_damage_than_a_run_lets_pass_is_refused(tmp_path: Path, generated: Path) -> None:
    index = ensure_index(tiny_recipe(generated))
    recipe = tiny_recipe(tmp_path, f"data.uri={index}", "data.max_bad_ratio=0.05")
    with pytest.raises(RecipeError, match=r"damages 1 of 16 videos, and data.max_bad_ratio=0.05 stops"):
        damage(recipe, index, 0.01, 0, lambda _: None)
