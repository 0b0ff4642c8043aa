"""Streams on a local Ray session, taken by threads that stand for trainers."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil
import ray

from system.core.plan import Cell
from system.data.assemble import Makers, StreamSpec, cells_for
from system.data.clock import Clock, ClockHandle, wait_for
from system.data.columns import Batch
from system.data.pipeline import clip_stream, execution_options, split
from system.data.reports import PhaseReport

# What a rank saw in one block: step, slots, videos, and checksums of frames and masks.
Seen = tuple[int, tuple[int, ...], tuple[int, ...], int, int]


class RecordingClock(Clock):
    """Remembers how far its gates have let readers go, and what it was told."""

    def __init__(self, above: ClockHandle | None = None) -> None:
        super().__init__(above)
        self._furthest = 0
        self._heard: list[PhaseReport] = []

    async def wait(self, stream: int, block: int, ahead: int) -> bool:
        passed = await super().wait(stream, block, ahead)
        self._furthest = max(self._furthest, block) if passed else self._furthest
        return passed

    async def report(self, report: PhaseReport) -> None:
        await super().report(report)
        self._heard.append(report)

    async def heard(self) -> list[PhaseReport]:
        """Return all that was ever reported."""
        return self._heard

    async def state(self) -> tuple[int, int]:
        """Return the trainers' block and the furthest one that was let through."""
        return self._block, self._furthest


@contextmanager
def recording_clock(above: ClockHandle | None = None) -> Iterator[Any]:
    handle = ray.remote(num_cpus=0, max_concurrency=10_000)(RecordingClock).remote(above)  # type: ignore[call-overload]
    try:
        yield handle
    finally:
        ray.kill(handle)


def seen(block: Batch) -> Seen:
    return (
        int(block["step"][0]),
        tuple(block["slot"].tolist()),
        tuple(block["video_id"].tolist()),
        zlib.crc32(block["frames"].tobytes()),
        zlib.crc32(block["visible"].tobytes()),
    )


def opened(spec: StreamSpec, clock: ClockHandle, from_step: int, makers: Makers | None) -> list[Any]:
    """Open the stream of one cell, and return the part of it of each of the cell's ranks."""
    cell = spec.cell
    wait_for(clock.open.remote(from_step, cell.before(spec.layout.first_block(from_step))))
    stream = clip_stream(spec, clock, makers)
    stream.context.execution_options = execution_options(spec.recipe, spec)
    return list(split(stream, cell.size))


def take(
    spec: StreamSpec,
    clock: Any,
    each: Callable[[int, int, Batch], bool],
    from_step: int = 0,
    makers: Makers | None = None,
) -> None:
    """Open the streams of the recipe's cells and take them with one thread a rank.

    Args:
        spec: of the stream.
        clock: of the run; where there are several cells, theirs.
        each: called with (rank, number of this rank's block, block); returns whether the rank goes on.
        from_step: where it starts.
        makers: of its stages, where it is not its own that are wanted.
    """
    layout, first = spec.layout, spec.layout.first_block(from_step)
    clocks = clock if isinstance(clock, list) else [clock]
    cells = dict(zip(cells_for(spec.recipe, layout.num_ranks), clocks, strict=True))
    errors: list[BaseException] = []

    def rank(number: int, cell: Cell, iterator: Any) -> None:
        try:
            for taken, block in enumerate(iterator.iter_batches(batch_size=None, batch_format="numpy")):
                if number == cell.first:
                    cells[cell].advance.remote(cell.before(first + (taken + 1) * layout.num_ranks) - 1)
                if not each(number, taken, block):
                    return
        except BaseException as error:  # noqa: BLE001  shown by the test
            errors.append(error)

    shards = [
        (number, cell, shard)
        for cell, own in cells.items()
        for number, shard in enumerate(opened(replace(spec, only=cell), own, from_step, makers), cell.first)
    ]
    threads = [threading.Thread(target=rank, args=each) for each in shards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in clocks:
        wait_for(own.open.remote(0, 0))  # whoever still waits for these streams' trainers need not
    _wait_for_prefetchers()
    if errors:
        raise errors[0]


def _wait_for_prefetchers() -> None:
    """Wait for the threads of iterators that were left early: one that calls Ray after its end takes pytest along."""
    for thread in threading.enumerate():
        if "iter_threaded" in thread.name:
            thread.join(60)


def ray_processes(title: str) -> list[psutil.Process]:
    """Return the processes of this test's Ray whose titles hold a text."""
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if title in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
