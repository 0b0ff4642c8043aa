"""Streams of clips that a benchmark opens on a Ray of its own, and takes block by block as a trainer does."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray._private import internal_api

from system.access import make_token
from system.benchmark.stand_in import CountDecode
from system.benchmark.timing import Stopwatch
from system.data.assemble import Makers, StreamSpec, lookahead
from system.data.clock import ClockHandle, make_clock, untyped_ray, wait_for
from system.data.columns import Batch
from system.data.pipeline import clip_stream, execution_options, split
from system.errors import SystemFault
from system.train.launch import ENVIRONMENT

# Longest wait until all blocks are made that may be, seconds; and what they take to be put in their place.
REST_LIMIT_S = 300.0
REST_S = 0.5

_internal: Any = internal_api


@contextmanager
def session(cpus: int, store_bytes: int) -> Iterator[None]:
    """Run a local Ray in a folder of its own, or use the one that runs in this process.

    Args:
        cpus: that Ray reckons with.
        store_bytes: of the object store.
    """
    if ray.is_initialized():
        yield
        return
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    # Ray warns when it has started four times as many processes as may start at once, which is one a core.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(cpus))
    make_token(os.environ)
    folder = tempfile.mkdtemp(prefix="tb", dir="/tmp")  # short: paths of sockets have 107 characters
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    ray.init(
        address="local",
        num_cpus=cpus,
        object_store_memory=store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": dict(ENVIRONMENT)},
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def spilled_bytes() -> int:
    """Return what Ray has written from its object store to disk so far."""
    state = _internal.get_state_from_address(untyped_ray.get_runtime_context().gcs_address)
    return int(_internal.get_memory_info_reply(state).store_stats.spilled_bytes_total)


class Stream:
    """An open stream, whose one rank is this process.

    Args:
        spec: of the stream, for one rank.
        clock: of the run; its gates open as blocks are taken.
        blocks: that Ray gives.
        made: a file with a byte for each block that is made.
        began: when it began to be opened, by `time.perf_counter`.

    `taken` is the number of blocks that were taken, `first_s` the seconds from `began` to the first of them, `device`
    where blocks are copied to.
    """

    def __init__(self, spec: StreamSpec, clock: ClockHandle, blocks: Iterator[Batch], made: Path, began: float) -> None:
        self._spec, self._blocks, self._made, self._began = spec, blocks, made, began
        self.clock, self.taken, self.first_s = clock, 0, 0.0
        self.device = torch.device("cpu")

    def take(self) -> Batch:
        """Return the next block."""
        block = next(self._blocks)
        self.first_s = self.first_s or time.perf_counter() - self._began
        self.clock.advance.remote(self.taken)
        self.taken += 1
        return block

    def blocks(self) -> Iterator[Batch]:
        """Return the blocks themselves, for a trainer that tells the clock how far it is."""
        return self._blocks

    def make(self, skipped: int, count: int, watch: Stopwatch) -> int:
        """Take blocks and return the clips of those that are timed; `plain.Plain.make` says more."""
        for _ in range(skipped):
            to_device(self.take(), self.device)
        with watch:
            clips = sum(to_device(self.take(), self.device) for _ in range(count))
        self.rest()
        return clips

    def rest(self) -> None:
        """Wait until what may be made ahead is made: then the stream costs nothing until a block is taken.

        Raises:
            SystemFault: if it never rests.
        """
        end = time.monotonic() + REST_LIMIT_S
        while self._made.stat().st_size < self.taken - 1 + lookahead(self._spec):
            if time.monotonic() > end:
                raise SystemFault(f"a stream that nobody takes from still works after {REST_LIMIT_S:.0f} s")
            time.sleep(0.05)
        time.sleep(REST_S)

    def close(self) -> None:
        """Take no more; what waits at a gate need not any more."""
        wait_for(self.clock.open.remote(0, 0))
        self._blocks = iter(())
        for thread in threading.enumerate():
            # That of an iterator which is left early; one that calls Ray after its end would end this process.
            if "iter_threaded" in thread.name:
                thread.join(60)


def to_device(block: Batch, device: torch.device) -> int:
    """Copy a block's frames out of shared memory to a device, as a trainer does; return its clips."""
    frames = torch.from_numpy(block["frames"]).to(device, copy=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return len(frames)


@contextmanager
def opened(spec: StreamSpec, makers: Makers | None = None, *, exact: bool = True) -> Iterator[Stream]:
    """Open a stream for one rank from step 0 on, and close it afterwards.

    Args:
        spec: of the stream.
        makers: of its stages; default: its own.
        exact: whether blocks come in the order of the plan; else as they are ready.
    """
    began = time.perf_counter()
    clock, makers = make_clock(), makers or Makers()
    folder = tempfile.TemporaryDirectory()
    made = Path(folder.name) / "made"
    made.touch()
    try:
        wait_for(clock.open.remote(0, 0))
        stream = clip_stream(spec, clock, Makers(makers.read, CountDecode(makers.decode, str(made))))
        options = execution_options(spec.recipe, spec)
        options.preserve_order = exact
        stream.context.execution_options = options
        (shard,) = split(stream, 1)
        blocks = iter(shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1))  # type: ignore[arg-type]
        opened_stream = Stream(spec, clock, blocks, made, began)
        del blocks, shard, stream
        try:
            yield opened_stream
        finally:
            opened_stream.close()
    finally:
        ray.kill(clock)
        folder.cleanup()
