"""Stage `memory`: does anything that a stream is made of grow, block after block, while its trainers are slow?

Two million blocks are planned. What coordinator, stages and trainers hold after 2,000 blocks is compared with what they
hold after 20,000; about 40 minutes on two cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from system.benchmark.line import Line, Target
from system.benchmark.recipes import LITTLE, small_recipe, stream_of
from system.benchmark.stages import Asked
from system.benchmark.streaming import session
from system.chaos.processes import descendants, memory_mb
from system.data.assemble import StreamSpec, stream_blocks
from system.data.clock import ClockHandle, make_clock, untyped_ray, wait_for
from system.data.pipeline import clip_stream, execution_options, split

STAGE = "memory"
# Blocks after which memory is compared, of the blocks of the plan.
FIRST, LAST, PLANNED = 2_000, 20_000, 2_000_000
RANKS = 2
# Trainers take this much longer than the stages need for a block.
SLOWER = 1.15
# What a role's processes call themselves.
TITLES = {
    "coordinator": "ray::SplitCoordinator",
    "stages": "ray::MapWorker",
    "trainers": "ray::Trainer",
    "clock": "ray::Clock",
}


class Trainer:
    """Takes a stream's blocks as a rank does, at a pace.

    Args:
        shard: this rank's part of the stream.
        clock: of the run; None for a rank that does not say how far it is.
        ranks: that share the stream.
    """

    def __init__(self, shard: Any, clock: ClockHandle | None, ranks: int) -> None:
        self._blocks = iter(shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1))
        self._clock, self._ranks, self._taken = clock, ranks, 0

    def take(self, blocks: int, pause_s: float) -> tuple[int, float]:
        """Take blocks, one every `pause_s` seconds; return how many were taken in all, and how long these took."""
        began = time.monotonic()
        for number in range(blocks):
            frames = next(self._blocks)["frames"].copy()
            del frames
            self._taken += 1
            if self._clock is not None:
                self._clock.advance.remote(self._taken * self._ranks - 1)
            time.sleep(max(0.0, began + (number + 1) * pause_s - time.monotonic()))
        return self._taken, time.monotonic() - began


@dataclass(frozen=True, slots=True)
class Look:
    """What was held after so many blocks of all trainers: MiB by role."""

    blocks: int
    held: dict[str, float]


def measure(asked: Asked) -> Sequence[Line]:
    """Measure the stage."""
    first, last = (20, 60) if asked.short else (FIRST, LAST)
    # Above 100 kB a block lies in the object store, as those of real runs do, and not in the coordinator.
    recipe = small_recipe(
        asked,
        data={
            "uri": LITTLE,
            "num_frames": 4,
            "size": 96,
            "clips_per_block": 2,
            "blocks_per_stream": PLANNED,
        },
        train={"global_batch": 2 * RANKS},
        resources={"decode_actors": 1, "num_workers": RANKS},
    )
    spec = stream_of(recipe, RANKS)
    assert len(stream_blocks(spec, 0, PLANNED)) == PLANNED
    with session(cpus=8, store_bytes=200_000_000):
        looks, per_block_s = _looks(spec, last, asked)
    around = max(last // 50, last // len(looks))
    return [_line(role, looks, (first, last), around, per_block_s) for role in TITLES]


def _looks(spec: StreamSpec, last: int, asked: Asked) -> tuple[list[Look], float]:
    """Take a stream's blocks with slow trainers, looking at memory; return the looks and the pace, seconds a block."""
    clock = make_clock()
    try:
        wait_for(clock.open.remote(0, 0))
        stream = clip_stream(spec, clock)
        stream.context.execution_options = execution_options(spec.recipe, spec)
        make: Any = untyped_ray.remote(num_cpus=0)(Trainer)
        shards = split(stream, RANKS)
        trainers = [make.remote(shard, None if rank else clock, RANKS) for rank, shard in enumerate(shards)]
        chunk = max(5, last // (100 * RANKS))
        _take(trainers, chunk, 0.0)  # starts the stream
        _, fastest = _take(trainers, chunk, 0.0)
        pause = SLOWER * fastest / chunk
        looks: list[Look] = []
        while not looks or looks[-1].blocks < last:
            taken, _ = _take(trainers, chunk, pause)
            looks.append(Look(taken, resident()))
            if len(looks) % 20 == 0:
                asked.say(f"{taken} of {last} blocks: {', '.join(f'{a} {b:.0f}' for a, b in looks[-1].held.items())}")
        wait_for(clock.open.remote(0, 0))
        for each in trainers:
            untyped_ray.kill(each)
    finally:
        untyped_ray.kill(clock)
    return looks, pause / RANKS


def _take(trainers: Sequence[Any], blocks: int, pause_s: float) -> tuple[int, float]:
    """Let every trainer take so many blocks; return how many all have taken, and the longest time of one, seconds."""
    told = wait_for([each.take.remote(blocks, pause_s) for each in trainers], "the trainers to take their blocks")
    return sum(taken for taken, _ in told), max(seconds for _, seconds in told)


def _line(role: str, looks: Sequence[Look], between: tuple[int, int], around: int, per_block_s: float) -> Line:
    before, after = (
        median(look.held[role] for look in looks if abs(look.blocks - blocks) <= around) for blocks in between
    )
    says = (
        f"from {before:.0f} MiB after {between[0]} blocks to {after:.0f} MiB after {between[1]}, proportional set size"
        f" without shared memory; {RANKS} trainers that take a block every {1e3 * per_block_s:.0f} ms, {SLOWER:g} times"
        f" as long as the stages need; {PLANNED} blocks planned"
    )
    growth = 100 * (after - before) / before
    return Line(STAGE, f"growth of {role}", "%", growth, targets=(Target("at_most", 10.0),), more=False, says=says)


def resident() -> dict[str, float]:
    """Return what the processes of each role hold together with their children, MiB; shared memory is left out."""
    found = dict.fromkeys(TITLES, 0.0)
    roles: dict[int, str] = {}
    for each in descendants(os.getpid()):
        role = next((role for role, title in TITLES.items() if each.title.startswith(title)), roles.get(each.parent))
        if role is not None:
            roles[each.pid] = role
            found[role] += memory_mb(each.pid)[0]
    return found
