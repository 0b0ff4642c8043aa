"""How ranks share streams, and streams the actors and the look-ahead: plans, without a stream."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.data import ExecutionResources

from system.core.plan import Cell, StepLayout
from system.data.assemble import (
    StreamSpec,
    cap_of,
    capped_blocks,
    cells_for,
    layout_for,
    lookahead_of,
    share_of,
    stream_blocks,
)
from system.data.coordinating import coordinator_on
from system.data.pipeline import CHUNK, BlockNumbers
from system.data.sharing import with_part
from system.recipe import Recipe, resume_conflicts
from tests.small import tiny_recipe


def recipe_of(*overrides: str) -> Recipe:
    return tiny_recipe("nowhere", "resources.decode_actors=8", *overrides)


def specs(recipe: Recipe, ranks: int, last_step: int = 1000) -> list[StreamSpec]:
    layout = layout_for(recipe, ranks)
    return [StreamSpec(recipe, "nowhere", layout, last_step, only=cell) for cell in cells_for(recipe, ranks)]


def blocks_of_ranks(recipe: Recipe, ranks: int, steps: range) -> list[list[int]]:
    """Return which blocks each rank gets in some steps, dealt out as Ray Data deals them: in turn."""
    found: list[list[int]] = []
    for spec in specs(recipe, ranks, steps.stop):
        own = stream_blocks(spec, steps.start, 500_000)
        numbers = [spec.cell.number(number) for number in own]
        found += [numbers[place :: spec.cell.size] for place in range(spec.cell.size)]
    return found


def slots_of(layout: StepLayout, blocks: list[int]) -> list[int]:
    parts = [layout.block(number) for number in blocks]
    return [slot for part in parts for slot in range(part.start, part.stop)]


@pytest.mark.parametrize(("ranks", "most"), [(4, 2), (4, 3), (5, 2), (3, 2), (2, 1)])
def test_every_rank_gets_the_blocks_of_one_stream(ranks: int, most: int) -> None:
    cells = recipe_of(f"resources.ranks_per_stream={most}", "data.clips_per_block=2")
    one = recipe_of("data.clips_per_block=2")
    assert layout_for(cells, ranks) == layout_for(one, ranks)
    assert blocks_of_ranks(cells, ranks, range(3, 9)) == blocks_of_ranks(one, ranks, range(3, 9))


def test_a_run_in_two_cells_then_one_then_two_takes_every_slot_once() -> None:
    """Starts at the steps where others have ended, with other numbers of streams and of ranks."""
    taken: list[int] = []
    for ranks, most, steps in ((4, 2, range(3)), (4, 4, range(3, 5)), (3, 2, range(5, 6)), (4, 2, range(6, 8))):
        recipe = recipe_of(f"resources.ranks_per_stream={most}")
        dealt = blocks_of_ranks(recipe, ranks, steps)
        layout = layout_for(recipe, ranks)
        taken += [slot for blocks in dealt for slot in slots_of(layout, blocks)]
    assert sorted(taken) == list(range(8 * recipe.slots_per_step))


def test_a_run_may_go_on_with_other_streams() -> None:
    assert not resume_conflicts(recipe_of(), recipe_of("resources.ranks_per_stream=2"))


def test_all_streams_end_with_the_same_step() -> None:
    recipe = recipe_of("resources.ranks_per_stream=2")
    for ranks in (4, 5):
        ends = {
            spec.cell.number(stream_blocks(spec, 2, 7)[-1]) // spec.layout.blocks_per_step
            for spec in specs(recipe, ranks)
        }
        assert ends == {2 + 7 // 2 - 1}


@pytest.mark.parametrize("more", [[], ["data.lookahead=40"]])
@pytest.mark.parametrize(("ranks", "most"), [(8, 4), (8, 2), (16, 4)])
def test_cells_share_out_the_look_ahead_and_the_store_of_one_stream(ranks: int, most: int, more: list[str]) -> None:
    cells = recipe_of(f"resources.ranks_per_stream={most}", *more)
    (one,) = specs(recipe_of("resources.ranks_per_stream=64", *more), ranks)
    found = [lookahead_of(cells, spec.cell) for spec in specs(cells, ranks)]
    assert sum(found) == lookahead_of(one.recipe, one.cell)
    assert capped_blocks(cells, ranks) == cap_of(one.recipe, one.cell)
    assert max(found) - min(found) <= 1


def test_no_cell_has_less_look_ahead_than_a_stream_needs_to_flow() -> None:
    for spec in specs(recipe_of("resources.ranks_per_stream=2", "data.lookahead=2"), 5):
        assert lookahead_of(spec.recipe, spec.cell) == 2 * spec.cell.size + 1


@pytest.mark.parametrize(("wanted", "ahead"), [(2000, 2000), (40, CHUNK // 2)])
def test_numbers_are_given_out_as_far_ahead_as_is_read(
    monkeypatch: pytest.MonkeyPatch, wanted: int, ahead: int
) -> None:
    asked: list[int] = []

    def wait_at(_stream: int, _block: int, ahead: int) -> bool:
        asked.append(ahead)
        return True

    class Actor:
        """Answers as the clock's actor does."""

        start = SimpleNamespace(remote=lambda: (0, 0))
        wait = SimpleNamespace(remote=wait_at)

    monkeypatch.setattr("system.data.clock.untyped_ray", SimpleNamespace(get=lambda value, timeout: value))
    (spec,) = specs(recipe_of(f"data.lookahead={wanted}"), 4, last_step=5000)
    clock: Any = Actor
    tasks = BlockNumbers(spec, clock, 3 * CHUNK).get_read_tasks(1)
    assert len(tasks) == 3
    for task in tasks:
        list(task())
    assert asked == [ahead] * 3


def test_the_actors_of_a_stage_are_shared_out() -> None:
    cells = cells_for(recipe_of("resources.ranks_per_stream=2"), 5)
    assert [share_of(8, cell) for cell in cells] == [2, 3, 3]
    assert [share_of((3, 8), cell) for cell in cells] == [(1, 2), (1, 3), (1, 3)]
    assert [share_of(1, cell) for cell in cells] == [1, 1, 1]  # those that read hold no core


def test_no_cells_bounds_are_the_wrong_way_round_and_all_things_are_shared_out() -> None:
    for count in range(1, 9):
        cells = [Cell(index, count, 8 * count) for index in range(count)]
        for cell in cells:
            shares = [cell.share(amount) for amount in range(4 * count)]
            assert shares == sorted(shares)
        assert all(sum(cell.share(amount) for cell in cells) == max(amount, count) for amount in range(4 * count))
    cells = list(cells_for(recipe_of("resources.decode_actors=[7,8]"), 40))
    assert len(cells) == 5
    assert all(low <= high for low, high in (share_of((7, 8), cell) for cell in cells))  # type: ignore[misc]


def test_there_are_no_more_streams_than_a_stage_has_actors() -> None:
    raft = ["method.name=mgmae", "motion.source=raft", "motion.weights=w.pth", "data.size=128"]
    for overrides, count in (
        (["resources.decode_actors=1"], 1),
        (["resources.decode_actors=[3,9]"], 3),
        ([*raft, "resources.mask.actors=2"], 2),
        (["resources.mask.actors=2"], 4),  # no stage of this recipe
    ):
        cells = cells_for(recipe_of("resources.ranks_per_stream=2", *overrides), 8)
        assert len(cells) == count
        assert sum(cell.size for cell in cells) == 8


def test_a_stream_without_a_cell_serves_all_ranks() -> None:
    (spec,) = specs(recipe_of(), 4)
    assert replace(spec, only=None).cell == spec.cell


class Coordinators:
    """Stands where Ray's class of coordinators does."""

    def options(self, **options: Any) -> dict[str, Any]:
        return options


def test_a_coordinator_is_pinned_to_the_machine_that_is_wanted_and_to_rays_choice_afterwards() -> None:
    module = SimpleNamespace(SplitCoordinator=Coordinators())
    ours = module.SplitCoordinator
    with coordinator_on("there", module):
        options = module.SplitCoordinator.options(max_concurrency=3, label_selector={"ray.io/node-id": "here"})
    assert options == {"max_concurrency": 3, "label_selector": {"ray.io/node-id": "there"}}
    assert module.SplitCoordinator is ours
    with coordinator_on(None, module):
        assert module.SplitCoordinator is ours
    with coordinator_on("there", SimpleNamespace()):
        pass  # a version of Ray that has no such class


def test_a_stream_counts_its_part_of_machines_that_have_fewer_cores_than_there_are_streams() -> None:
    given = ExecutionResources(cpu=0, gpu=0, object_store_memory=100)  # Ray's part of each machine: a whole number
    found = with_part(given, {"CPU": 24.0, "GPU": 8.0, "object_store_memory": 1e9}, 16)
    assert (found.cpu, found.gpu, found.object_store_memory) == (1.5, 0.5, 100)
    more = with_part(ExecutionResources(cpu=4), {"CPU": 24.0}, 16)
    assert more.cpu == 4


def test_numbers_of_blocks_are_plain_arithmetic_however_long_the_run() -> None:
    (_, spec) = specs(recipe_of("resources.ranks_per_stream=2", "train.steps=1000000000"), 4, 10**9)
    own = stream_blocks(spec, 10**8, 500_000)
    numbers = np.array([spec.cell.number(number) for number in own[:1000]])
    assert len(own) == 500_000
    assert (numbers % 4 >= 2).all()
    assert numbers[0] == 4 * 10**8 + 2
