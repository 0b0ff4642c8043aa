from __future__ import annotations

from pathlib import Path

import pytest

from system.errors import RecipeError
from system.recipe import Recipe
from system.train.elastic import (
    GROW_AFTER_S,
    is_elastic,
    largest_that_fits,
    layouts,
    may_grow,
    seen_room,
    told_workers,
)
from tests.small import tiny_recipe


def recipe(tmp_path: Path, workers: str, *overrides: str) -> Recipe:
    return tiny_recipe(tmp_path, f"resources.num_workers={workers}", *overrides)


def test_a_number_and_a_range_of_workers_are_told_apart(tmp_path: Path) -> None:
    assert not is_elastic(recipe(tmp_path, "2"))
    assert told_workers(recipe(tmp_path, "2")) == "2"
    assert is_elastic(recipe(tmp_path, "[1,3]"))
    assert told_workers(recipe(tmp_path, "[1,3]")) == "1 to 3"


def test_as_many_workers_as_the_machines_have_room_for_beside_the_decoders(tmp_path: Path) -> None:
    some = recipe(tmp_path, "[1,4]", "resources.cpus_per_worker=2", "resources.decode_actors=[2,8]")
    for cpus, fits in (([10], 4), ([9], 3), ([4], 1), ([3], None), ([3, 3], 2), ([4, 4], 3), ([], None)):
        assert largest_that_fits(some, [{"CPU": float(each)} for each in cpus], gpu=False) == fits


def test_a_worker_lies_on_one_machine(tmp_path: Path) -> None:
    some = recipe(tmp_path, "[1,4]", "resources.cpus_per_worker=4", "resources.decode_actors=1")
    assert largest_that_fits(some, [{"CPU": 3.0}] * 5, gpu=False) is None
    assert largest_that_fits(some, [{"CPU": 7.0}] * 2, gpu=False) == 2


def test_custom_resources_and_gpus_are_counted(tmp_path: Path) -> None:
    some = recipe(tmp_path, "[1,4]", "resources.worker_resources.train=1", "resources.decode_resources.decode=1")
    train, decode = {"CPU": 8.0, "GPU": 2.0, "train": 2.0}, {"CPU": 8.0, "decode": 8.0}
    assert largest_that_fits(some, [train, decode], gpu=True) == 2
    assert largest_that_fits(some, [train, train, decode], gpu=True) == 4
    assert largest_that_fits(some, [train], gpu=True) is None
    assert largest_that_fits(some, [{**train, "GPU": 1.0}, decode], gpu=True) == 1
    assert largest_that_fits(some, [{**train, "GPU": 1.0}, decode], gpu=False) == 2


def test_a_share_of_a_gpu_is_left_for_the_flow(tmp_path: Path) -> None:
    some = recipe(
        tmp_path,
        "[1,2]",
        "motion.source=raft",
        "motion.weights=/raft.pth",
        "data.size=128",
        "resources.train_gpus_per_worker=0.75",
        "resources.mask.gpus_per_actor=0.25",
        "resources.mask.actors=2",
    )
    assert largest_that_fits(some, [{"CPU": 8.0, "GPU": 2.0}], gpu=True) == 2
    whole = some.model_copy(update={"resources": some.resources.model_copy(update={"train_gpus_per_worker": 1.0})})
    assert largest_that_fits(whole, [{"CPU": 8.0, "GPU": 2.0}], gpu=True) == 1


def test_numbers_that_waste_too_much_and_those_that_found_no_room_are_passed_over(tmp_path: Path) -> None:
    some = recipe(tmp_path, "[9,16]")  # 16 videos of a step: from 9 to 10 of them over a quarter is padding
    allowed = [layout.num_ranks for layout in layouts(some)]
    assert allowed == [layout.num_ranks for layout in layouts(some) if layout.padding <= 0.25]
    assert 16 in allowed
    assert 11 not in allowed
    machines = [{"CPU": 64.0}]
    assert largest_that_fits(some, machines, gpu=False) == 16
    assert largest_that_fits(some, machines, gpu=False, without=[16]) == sorted(allowed)[-2]


def test_a_range_without_one_number_that_fits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="worker counts that fit"):
        layouts(recipe(tmp_path, "[11,12]"))


def test_a_range_is_written_from_the_smaller_to_the_larger_number(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="1 <= min <= max"):
        recipe(tmp_path, "[3,2]")


def test_room_must_last_before_a_group_is_ended_for_it() -> None:
    room = seen_room(None, 4, 2, now_s=100.0)
    assert not may_grow(room, 100.0)
    room = seen_room(room, 3, 2, now_s=100.0 + GROW_AFTER_S)
    assert may_grow(room, 100.0 + GROW_AFTER_S)
    assert room is not None
    assert room.ranks == 3
    assert seen_room(room, 2, 2, now_s=120.0) is None
    assert seen_room(room, None, 2, now_s=120.0) is None
    assert not may_grow(None, 120.0)
