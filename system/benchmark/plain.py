"""The stream's stages in plain processes, without Ray: what the machine allows its stream."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from system.benchmark.timing import Stopwatch
from system.data.assemble import Makers, StreamSpec
from system.errors import SystemFault

# Longest wait for one block, seconds: processes start and import at first.
BLOCK_S = 300.0


def _work(spec: StreamSpec, makers: Makers, numbers: Any, done: Any) -> None:
    """Make the blocks whose numbers come, and say how many clips each has, until None comes."""
    read, decode = makers.read(spec), makers.decode(spec)
    getattr(decode, "start", lambda: None)()
    try:
        for number in iter(numbers.get, None):
            block = decode(read({"block": np.array([number])}))
            done.put(len(block["frames"].copy()))  # what the stream's consumer does with a block
    finally:
        getattr(decode, "close", lambda: None)()


class Plain:
    """Processes that each read and decode, one block after the other.

    Args:
        numbers: where they take block numbers from.
        done: where they say what they have made.
        processes: how many there are.
        first: number of the first block.
    """

    def __init__(self, numbers: Any, done: Any, processes: int, first: int) -> None:
        self._numbers, self._done, self._processes, self._next = numbers, done, processes, first

    def make(self, skipped: int, count: int, watch: Stopwatch) -> int:
        """Make blocks and return the clips of those that are timed.

        Args:
            skipped: blocks before those that are timed, so that the processes are in the middle of their work.
            count: blocks that are timed.
            watch: runs meanwhile.
        """
        more = self._processes  # so that none of them idles before the last timed block is made
        for number in range(self._next, self._next + skipped + count + more):
            self._numbers.put(number)
        self._next += skipped + count + more
        self._take(skipped)
        with watch:
            clips = self._take(count)
        self._take(more)
        return clips

    def _take(self, blocks: int) -> int:
        try:
            return sum(self._done.get(timeout=BLOCK_S) for _ in range(blocks))
        except queue.Empty as error:
            raise SystemFault(f"a plain process of the benchmark made no block in {BLOCK_S:.0f} s") from error


@contextmanager
def plain(spec: StreamSpec, makers: Makers, processes: int, first: int = 0) -> Iterator[Plain]:
    """Start processes, and end them afterwards."""
    context = multiprocessing.get_context("spawn")  # and not fork: threads of this process hold locks
    numbers, done = context.Queue(), context.Queue()
    workers = [context.Process(target=_work, args=(spec, makers, numbers, done)) for _ in range(processes)]
    for each in workers:
        each.start()
    try:
        yield Plain(numbers, done, processes, first)
        for _ in workers:
            numbers.put(None)
        for each in workers:
            each.join(30)
    finally:
        for each in workers:
            each.kill()
            each.join()
