"""What one executor of a stream sustains, in blocks a second: stand-ins take the place of reading and decoding.

Its coordinator hands out blocks one at a time, in one thread. So beside the rate that was seen, which everything on the
machine shares, stands what the coordinator spends on a block: its inverse is the most that a core of its own allows.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from system.benchmark.recipes import LITTLE, small_recipe, stream_of
from system.benchmark.stages import Asked
from system.benchmark.stand_in import Pace, stand_ins
from system.chaos.processes import cpu_s, descendants
from system.data.assemble import StreamSpec, clip_bytes, lookahead
from system.data.clock import ClockHandle, make_clock, untyped_ray, wait_for
from system.data.pipeline import clip_stream, execution_options, split
from system.recipe import Recipe

# What a role's processes call themselves.
TITLES = {
    "coordinator": "ray::SplitCoordinator",
    "clock": "ray::Clock",
    "actors": "ray::MapWorker",
}
# Frames of a stand-in clip: small ones, so that a block has any size. Above 100 kB a block lies in the object store, as
# those of real runs do, and not in the coordinator.
FRAMES = {"num_frames": 4, "size": 96}
CLIP_MB = 4 * 96 * 96 * 3 / 1e6


@dataclass(frozen=True, slots=True)
class Load:
    """What a stream is given to do.

    Attributes:
        ranks: that it serves.
        actors: that decode, by sleeping.
        task_s: of a block in one of them.
        block_mb: of a block, MB; whole clips of 0.1 MB.
    """

    ranks: int
    actors: int
    task_s: float
    block_mb: float

    @property
    def clips(self) -> int:
        """Clips of a block."""
        return max(1, round(self.block_mb / CLIP_MB))

    @property
    def possible_s(self) -> float | None:
        """Blocks a second if nothing but the tasks took time; None: no limit."""
        return self.actors / self.task_s if self.task_s else None


@dataclass(frozen=True, slots=True)
class Sustained:
    """What was seen.

    Attributes:
        load: of the stream.
        blocks: that were timed.
        blocks_s: a second.
        cpu_ms: of each role in `TITLES`, for a block.
    """

    load: Load
    blocks: int
    blocks_s: float
    cpu_ms: dict[str, float]

    @property
    def most_s(self) -> float:
        """Blocks a second for which the coordinator would need a whole core."""
        return 1e3 / self.cpu_ms["coordinator"] if self.cpu_ms["coordinator"] else float("inf")

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "most_s": self.most_s}


def recipe_for(load: Load, asked: Asked) -> Recipe:
    """Return the recipe of a stream with a load."""
    return small_recipe(
        asked,
        data={"uri": LITTLE, "clips_per_block": load.clips, **FRAMES},
        train={"global_batch": load.clips * load.ranks},
        resources={
            "decode_actors": load.actors,
            "read_actors": max(1, load.actors // 4),
            "num_workers": load.ranks,
            "ranks_per_stream": load.ranks,
        },
    )


def store_for(load: Load, asked: Asked) -> int:
    """Return the bytes of an object store that a stream with a load does not fill."""
    recipe = recipe_for(load, asked)
    ahead = lookahead(stream_of(recipe, load.ranks))
    return max(200_000_000, 2 * (3 * ahead + 2 * load.ranks) * load.clips * clip_bytes(recipe))


class _Ranks:
    """Ranks that take a stream's blocks as fast as they come, each in a thread of this process.

    They look at no frame: on a cluster they are other machines' work.
    """

    def __init__(self, spec: StreamSpec, clock: ClockHandle, shards: Sequence[Any]) -> None:
        self._spec, self._clock = spec, clock
        self._taken = [0] * len(shards)
        self._ended = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._take, args=pair, daemon=True) for pair in enumerate(shards)]
        for thread in self._threads:
            thread.start()

    def _take(self, rank: int, shard: Any) -> None:
        try:
            for _ in shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
                self._taken[rank] += 1
                if rank == 0:
                    self._clock.advance.remote(self._taken[0] * self._spec.layout.num_ranks - 1)
                if self._ended.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  raised where the blocks are counted
            self._errors.append(error)

    @property
    def taken(self) -> int:
        """Blocks that all of them have taken."""
        if self._errors:
            raise self._errors[0]
        return sum(self._taken)

    def until(self, blocks: int) -> None:
        """Wait until so many are taken."""
        while self.taken < blocks:
            time.sleep(0.02)

    def end(self) -> None:
        """Take no more."""
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
        for thread in threading.enumerate():
            # Those of iterators that were left early; one that calls Ray after its end would end this process.
            if "iter_threaded" in thread.name:
                thread.join(60)


@contextmanager
def _ranks(spec: StreamSpec, pace: Pace) -> Iterator[_Ranks]:
    clock = make_clock()
    try:
        wait_for(clock.open.remote(0, 0))
        stream = clip_stream(spec, clock, stand_ins(pace))
        stream.context.execution_options = execution_options(spec.recipe, spec)
        ranks = _Ranks(spec, clock, split(stream, spec.layout.num_ranks))
        try:
            yield ranks
        finally:
            wait_for(clock.open.remote(0, 0))
            ranks.end()
    finally:
        untyped_ray.kill(clock)


def sustain(load: Load, seconds: float, asked: Asked) -> Sustained:
    """Run a stream with a load, and say what came of it.

    Args:
        load: of the stream.
        seconds: that are timed, once all that may be made ahead has been made and taken.
        asked: where files may be written, and whether it is to be short.
    """
    recipe = recipe_for(load, asked)
    spec = stream_of(recipe, load.ranks)
    with _ranks(spec, Pace(clip_s=load.task_s / load.clips)) as ranks:
        ranks.until(load.ranks if asked.short else 2 * lookahead(spec))
        began, before, used = time.perf_counter(), ranks.taken, _used()
        time.sleep(seconds)
        ranks.until(before + load.ranks)
        blocks, took = ranks.taken - before, time.perf_counter() - began
        spent = {role: 1e3 * (after - used[role]) / blocks for role, after in _used().items()}
    return Sustained(load, blocks, blocks / took, spent)


def _used() -> dict[str, float]:
    """Return the CPU seconds of the processes of each role below this one."""
    found = dict.fromkeys(TITLES, 0.0)
    for each in descendants(os.getpid()):
        for role, title in TITLES.items():
            if each.title.startswith(title):
                found[role] += cpu_s(each.pid)
    return found


HEADER = ("ranks", "actors", "task", "block", "possible", "blocks/s", "coordinator", "clock", "actors", "most blocks/s")


def sustained_table(found: Sequence[Sustained]) -> str:
    """Return what was seen as columns: CPU time is for a block, `most` what one core for the coordinator allows."""
    rows: list[tuple[str, ...]] = [HEADER]
    for each in found:
        load, possible = each.load, each.load.possible_s
        rows.append(
            (
                str(load.ranks),
                str(load.actors),
                f"{1e3 * load.task_s:.0f} ms",
                f"{load.clips * CLIP_MB:.1f} MB",
                "" if possible is None else f"{possible:.0f}",
                f"{each.blocks_s:.1f}",
                *(f"{each.cpu_ms[role]:.1f} ms" for role in ("coordinator", "clock", "actors")),
                f"{each.most_s:.0f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
