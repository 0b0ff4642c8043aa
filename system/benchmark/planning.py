"""One process that asks for the rows of steps, ours or the ordinary one: `python -m system.benchmark.planning`.

A process of its own, since what is measured is what it takes, memory and time, before the first rows are there.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from system.core.clip import token_grid
from system.core.plan import EpochPlan
from system.data.clips import ClipMaker, ClipSpec
from system.data.index import Index
from system.errors import SystemFault

# (uri, first byte, bytes) of each video of a step.
Rows = tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]
RowsOf = Callable[[int], Rows]

# Of the recipe of ViT-B on Kinetics-400.
STEP_VIDEOS = 2048
WINDOW_VIDEOS = 16_384
# Packages of the ordinary way.
PEERS = ("torch", "pandas")
# Videos of one block, as a read actor asks for them.
BLOCK_VIDEOS = 48


def maker_of(uri: str) -> ClipMaker:
    """Open an index as the actors of a stream do."""
    index = Index(uri)
    spec = ClipSpec(token_grid(16, 224, 2, 16), 4, 1, "auto")
    return ClipMaker(EpochPlan(index.num_videos, 0, index.group_videos, WINDOW_VIDEOS), spec, index, 0)


def ours(uri: str) -> RowsOf:
    """Return our way to the rows of a step: the plan, and places by row groups."""
    maker = maker_of(uri)

    def rows(step: int) -> Rows:
        _, places = maker.own_places(step * STEP_VIDEOS, (step + 1) * STEP_VIDEOS)
        return places.uris, places.starts, places.sizes

    return rows


def conventional(uri: str) -> RowsOf:
    """Return the ordinary way: a table in memory, of the columns that are needed, and rows by a permutation of it.

    The columns are joined first: rows out of as many pieces as there are row groups take far longer.
    """
    import torch  # noqa: PLC0415  of the ordinary way alone

    table = pq.read_table(uri, columns=["uri", "byte_start", "num_bytes"]).combine_chunks()
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0)).numpy()

    def rows(step: int) -> Rows:
        taken = table.take(order[np.arange(step * STEP_VIDEOS, (step + 1) * STEP_VIDEOS) % len(order)])
        uris, starts, sizes = (column.to_numpy() for column in taken.columns)
        return uris, starts, sizes

    return rows


def sequential_ms(rows: RowsOf, first: int, steps: int) -> float:
    """Return the milliseconds that the rows of a step take, of steps one after the other."""
    began = time.perf_counter()
    for step in range(first, first + steps):
        rows(step)
    return (time.perf_counter() - began) / steps * 1e3


def block_us(maker: ClipMaker, first: int, steps: int) -> float:
    """Return the microseconds a slot that a read actor takes to say what it reads, a block at a time."""
    began = time.perf_counter()
    for slot in range(first * STEP_VIDEOS, (first + steps) * STEP_VIDEOS, BLOCK_VIDEOS):
        maker.own_readings(slot, slot + BLOCK_VIDEOS)
    return (time.perf_counter() - began) / (steps * STEP_VIDEOS) * 1e6


def request_us(maker: ClipMaker, first: int, slots: int) -> float:
    """Return the microseconds a slot that a decode actor takes to say what it decodes, every 16th slot."""
    began = time.perf_counter()
    for slot in range(first * STEP_VIDEOS, first * STEP_VIDEOS + 16 * slots, 16):
        maker.request(maker.choose(slot))
    return (time.perf_counter() - began) / slots * 1e6


def watched(kind: str, uri: str, middle: int, steps: int) -> dict[str, float]:
    """Open an index, take the rows of the first step, of one in the middle and of those after it; return what it took.

    Returns:
        `first_s`, seconds to the first two; `read_mb`, what was read for them; `step_ms` of each of the others;
        `resident_mb`, the largest size of the process less what it had before; for `ours`, `block_us` and `request_us`.
    """
    for name in () if kind == "ours" else PEERS:  # imports are not what is measured
        importlib.import_module(name)
    before_mb, before_read = _resident_mb("VmRSS"), _read_mb()
    began = time.perf_counter()
    rows = ours(uri) if kind == "ours" else conventional(uri)
    rows(0)
    rows(middle)
    found = {"first_s": time.perf_counter() - began, "read_mb": _read_mb() - before_read}
    found["step_ms"] = sequential_ms(rows, middle + 1, steps)
    found["resident_mb"] = _resident_mb("VmHWM") - before_mb
    if kind == "ours":
        maker = maker_of(uri)
        found["block_us"] = block_us(maker, middle + 1, max(1, steps // 4))
        found["request_us"] = request_us(maker, middle + 1, 8 * steps)
    return found


def _resident_mb(name: str) -> float:
    """Return this process's size now (VmRSS) or at its largest (VmHWM), MB of 10^6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemFault(f"this system does not tell {name} of a process")


def _read_mb() -> float:
    """Return what this process has read from files, MB of 10^6 bytes."""
    return int(Path("/proc/self/io").read_text().split()[1]) / 1e6


if __name__ == "__main__":
    sys.stdout.write(json.dumps(watched(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
