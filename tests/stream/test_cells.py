"""Two streams for two cells of ranks, on one machine: each with actors, gates and a clock of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from system.benchmark.streaming import spilled_bytes
from system.data.assemble import Makers, StreamSpec, cells_for, decode_stage, local_blocks, lookahead_of
from system.data.clock import wait_for
from system.data.columns import Batch
from tests.small import stream_spec, tiny_recipe
from tests.stream.streams import Seen, ray_processes, recording_clock, seen, take

pytestmark = pytest.mark.ray


@dataclass(frozen=True, slots=True)
class HeldDecode:
    """Makes decode stages that count what they have made; those of cell 1 wait until a file is there."""

    folder: str

    def __call__(self, spec: StreamSpec) -> Callable[[Batch], Batch]:
        stage, folder, cell = decode_stage(spec), Path(self.folder), spec.cell.index

        def held(batch: Batch) -> Batch:
            while cell == 1 and not (folder / "go").exists():
                time.sleep(0.02)
            clips = stage(batch)
            with (folder / f"made{cell}").open("ab") as file:
                file.write(b".")
            return clips

        return held


def test_a_slow_cell_holds_up_the_others_at_the_step_and_takes_nothing_of_theirs(
    ray_session: None, generated: Path, tmp_path: Path
) -> None:
    """Four ranks that meet at every step. The second cell makes nothing for a while: the first fills its look-ahead."""
    recipe = tiny_recipe(
        generated,
        "train.steps=16",
        "data.lookahead=12",
        "resources.ranks_per_stream=2",
        "resources.decode_actors=2",
        "resources.read_actors=2",
    )
    spec = stream_spec(recipe, 4)
    cells = cells_for(recipe, 4)
    planned = [[seen(block) for block in local_blocks(spec, rank, 0)] for rank in range(4)]
    taken: list[list[Seen]] = [[], [], [], []]
    meeting = threading.Barrier(4)
    for cell in cells:
        (tmp_path / f"made{cell.index}").touch()

    def made(cell: int) -> int:
        return (tmp_path / f"made{cell}").stat().st_size

    # Who has taken its first block lets so many more through.
    share = lookahead_of(recipe, cells[0])
    full = cells[0].size - 1 + share
    held: list[tuple[int, int]] = []

    def each(rank: int, number: int, block: Batch) -> bool:
        taken[rank].append(seen(block))
        if rank == 0 and number == 0:
            end = time.monotonic() + 60
            while made(0) < full and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(1)
            held.append((made(0), made(1)))
            assert len(ray_processes("_Decode")) == len(ray_processes("SplitCoordinator")) == 2
            (tmp_path / "go").touch()
        meeting.wait(120)  # the sum over ranks
        return True

    with ExitStack() as stack:
        clocks = [stack.enter_context(recording_clock()) for _ in cells]
        take(spec, clocks, each, makers=Makers(decode=HeldDecode(str(tmp_path))))
        states = [wait_for(clock.state.remote()) for clock in clocks]
        assert [wait_for(clock.stalls.remote()) for clock in clocks] == [0, 0]
    assert share == 6
    assert held == [(full, 0)]
    assert taken == planned
    assert [furthest for _, furthest in states] == [31, 31]  # by the cells' own count of 2 blocks a step
    assert [made(cell.index) for cell in cells] == [32, 32]
    assert spilled_bytes() == 0
