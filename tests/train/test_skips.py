from __future__ import annotations

from pathlib import Path

import pytest

from system.data.dataset import ensure_index
from system.data.index import Index
from system.errors import StorageFault
from system.train.skips import extend_skips, merged, read_skips, skip_lines, told_videos, videos_of
from tests.small import tiny_recipe


def test_steps_are_merged_in_order_and_the_first_reason_stays() -> None:
    assert list(merged({9: "nan", 4: "inf"}, {5: "nan", 4: "other"}).items()) == [(4, "inf"), (5, "nan"), (9, "nan")]


def test_steps_that_are_skipped_are_kept_in_the_runs_folder(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert read_skips(run) == {}
    assert extend_skips(run, {7: "the loss is nan"}) == {7: "the loss is nan"}
    assert extend_skips(run, {3: "inf"}) == {3: "inf", 7: "the loss is nan"}
    assert read_skips(run) == {3: "inf", 7: "the loss is nan"}


def test_a_skipped_step_is_told_with_its_slots_and_videos(generated: Path) -> None:
    recipe = tiny_recipe(generated, "train.global_batch=4")
    index = Index(ensure_index(recipe))
    names = videos_of(recipe, index, 2)
    every = [name for step in range(4) for name in videos_of(recipe, index, step)]
    assert len(names) == 4
    assert sorted(every) == sorted(row.name for row in index), "an epoch's steps hold each video once"
    (line,) = skip_lines(recipe, index, {2: "the loss is nan"})
    assert line.startswith("step 2 is skipped from now on, slots 8 to 11: the loss is nan; its videos: ")
    assert line.endswith(", ".join(names))


def test_of_many_videos_the_first_are_named(generated: Path) -> None:
    recipe = tiny_recipe(generated, "train.global_batch=20")
    names = videos_of(recipe, Index(ensure_index(recipe)), 0)
    assert names[-1] == "and 4 more"
    assert len(names) == 17


def test_steps_are_skipped_and_told_without_their_videos_where_the_index_does_not_answer(
    generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(generated, "train.global_batch=4")
    index = Index(ensure_index(recipe))

    def away(_video: int) -> None:
        raise StorageFault("the index is away")

    monkeypatch.setattr(index, "row", away)
    assert told_videos(recipe, index, 2) == "not to be read now: the index is away"
    assert skip_lines(recipe, index, {2: "inf"})[0].endswith("its videos: not to be read now: the index is away")
