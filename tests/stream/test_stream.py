from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from system.data.assemble import local_blocks, lookahead, stream_blocks
from system.data.clock import wait_for
from system.data.columns import Batch
from system.data.pipeline import CHUNK
from tests.small import stream_spec, tiny_recipe
from tests.stream.streams import Seen, ray_processes, recording_clock, seen, take

pytestmark = pytest.mark.ray


def sequences(generated: Path, kill_at: int | None = None) -> list[list[Seen]]:
    """Take two ranks' whole streams; kill the decode actor when rank 0 has that many blocks."""
    spec = stream_spec(tiny_recipe(generated, "train.steps=30", "data.lookahead=2"), 2)
    taken: list[list[Seen]] = [[], []]

    def each(rank: int, number: int, block: Batch) -> bool:
        taken[rank].append(seen(block))
        if rank == 0 and number == kill_at:
            (decoder,) = ray_processes("_Decode")
            decoder.kill()
        return True

    with recording_clock() as clock:
        take(spec, clock, each)
    return taken


def test_a_ranks_sequence_is_the_same_in_every_run_and_after_an_actor_is_killed(
    ray_session: None, generated: Path
) -> None:
    spec = stream_spec(tiny_recipe(generated, "train.steps=30"), 2)
    planned = [[seen(block) for block in local_blocks(spec, rank, 0)] for rank in (0, 1)]
    assert len(planned[0]) == 30
    assert len({each for part in planned for each in part}) == 60
    assert sequences(generated) == planned
    assert sequences(generated, kill_at=5) == planned


def test_a_stream_of_more_blocks_than_its_source_gives_at_once_flows_from_the_start(
    ray_session: None, generated: Path
) -> None:
    """Ray keeps a part of the store for a source that has more to give: the rest must do for the blocks."""
    recipe = tiny_recipe(
        generated,
        "data.size=96",
        "train.global_batch=16",
        "train.steps=1000000",
        "data.blocks_per_stream=2000000",
    )
    with recording_clock() as clock:
        take(stream_spec(recipe, 2), clock, lambda rank, number, block: number < 20)
        assert wait_for(clock.stalls.remote()) == 0


def test_two_million_blocks_wait_for_a_slow_trainer(ray_session: None, generated: Path) -> None:
    """The short form of the long test in test_long_stream.py."""
    recipe = tiny_recipe(
        generated,
        "data.size=96",
        "train.global_batch=4",
        "train.steps=1000000",
        "data.blocks_per_stream=2000000",
        "data.lookahead=8",
    )
    spec = stream_spec(recipe, 2)
    assert len(stream_blocks(spec, 0, recipe.data.blocks_per_stream)) == 2_000_000
    furthest: list[tuple[int, int]] = []
    resident: list[int] = []

    with recording_clock() as clock:

        def each(rank: int, number: int, _block: Batch) -> bool:
            if rank == 0:
                time.sleep(0.15)
                furthest.append(wait_for(clock.state.remote()))
                (coordinator,) = ray_processes("SplitCoordinator")
                resident.append(psutil.Process(coordinator.pid).memory_info().rss)
            return number < 45

        take(spec, clock, each)
    # A reader that was let through before the trainers moved on is never further than the gates allow.
    assert max(let - at for at, let in furthest) <= max(lookahead(spec), CHUNK // 2 + 1)
    assert max(let for _, let in furthest) < 45 * 2 + CHUNK
    assert resident[-1] - resident[20] < 30e6
