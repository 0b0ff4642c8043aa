"""RAY TRAIN BEGINS HERE: the function that every worker runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import ray.data
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device

from system import logs
from system.collection import resume
from system.data.assemble import cells_for, layout_for
from system.data.clock import ClockHandle, Wish, clock_of, wait_for
from system.data.columns import Batch
from system.data.dataset import run_uri
from system.data.hardware import hardware_of
from system.data.landing import my_gpus, my_place
from system.data.placing import device_kind
from system.errors import StreamFault
from system.monitoring.export import Exporter
from system.recipe import Recipe
from system.train.group import imported
from system.train.streams import STREAM, Job
from system.train.sums import Wanted
from system.train.watchdog import Edges, Watchdog, keep_stacks, patience_for

if TYPE_CHECKING:
    from ray.data import DataIterator

    from system.train.session import Values


def _device(recipe: Recipe) -> torch.device:
    """Return this worker's device: of the kind that its process group speaks for."""
    insists = "resources.use_gpu=true" if recipe.resources.use_gpu is True else None
    kind = device_kind(my_gpus(), sees_cuda=torch.cuda.is_available(), insists=insists)
    device = get_device() if kind == "cuda" and dist.get_backend() == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


class _Stream:
    """This rank's shard of the streams; the first one begins at once, since a model is still being built meanwhile."""

    def __init__(self, shard: DataIterator) -> None:
        self._shard = shard
        self._ahead: Future[Batch | None] | None = Future()
        self._begun = self._batches()
        threading.Thread(target=self._begin, args=(self._ahead,), name="first block", daemon=True).start()

    def _batches(self) -> Iterator[Batch]:
        # Whole blocks, as they come; Ray's annotation does not know that None means that.
        return iter(self._shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1))  # type: ignore[arg-type]

    def _begin(self, ahead: Future[Batch | None]) -> None:
        try:
            ahead.set_result(next(self._begun, None))
        except BaseException as error:  # noqa: BLE001  it is whoever wants the block who has to know
            ahead.set_exception(error)

    def blocks(self) -> Iterator[Batch]:
        """Yield the blocks of one stream; called again, those of the next."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            yield from self._batches()
        elif (first := ahead.result()) is not None:
            yield first
            yield from self._begun


def _blocks(stream: _Stream, clock: ClockHandle, steps: _Steps) -> Iterator[Batch]:
    """Yield this rank's blocks; when a stream has given its last one, the next stream follows at the next step."""
    while True:
        taken = 0
        for block in stream.blocks():
            taken += 1
            yield block
        if not taken:
            raise StreamFault(f"a stream for step {steps.next} gave no block")
        if steps.leads:  # a cell's ranks wait for each other at the next stream's start: one may say where it begins
            wait_for(clock.open.remote(steps.next, steps.first_block()), "the run's clock to open the next stream")


class _Steps:
    """Which step is next, for the start of the next stream, and this rank's cell, in whose count blocks are told."""

    def __init__(self, recipe: Recipe, rank: int, size: int) -> None:
        self._layout = layout_for(recipe, size)
        (self.cell,) = (cell for cell in cells_for(recipe, size) if cell.first <= rank < cell.first + cell.size)
        self.leads = rank == self.cell.first
        self.next = 0

    def done(self, values: Values) -> None:
        self.next = int(values["step"]) + 1

    def first_block(self) -> int:
        return self.cell.before(self._layout.first_block(self.next))


class _Wishes:
    """What the driver asks for, heard in a thread: the loop of rank 0 looks at it at the end of every step."""

    def __init__(self, clock: ClockHandle) -> None:
        self._clock, self._newest, self._taken = clock, Wish(0, "save", ""), 0
        threading.Thread(target=self._listen, name="wishes", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                wish = wait_for(self._clock.asked.remote(self._newest.number), "a wish of the driver's")
            except StreamFault:  # it answers late: what is asked for meanwhile is heard then
                continue
            except ray.exceptions.RayError:  # it is gone, and the driver with it: the group ends too
                return
            self._newest = wish or self._newest

    def take(self) -> Wanted:
        """Return the newest wish: a `save` once, a `stop` from then on."""
        newest = self._newest
        if not newest.number or (newest.what == "save" and newest.number == self._taken):
            return ""
        self._taken = newest.number
        return newest.what


def train_worker(job: Job) -> None:
    """Train one rank of a run. What Ray Train calls on every worker."""
    for name in ("ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    style = logs.style_of(job.recipe.telemetry.logs)
    logs.log_to_stderr(logs.Context(style, job.recipe.run.name, "rank", rank, job.terms.generation))
    torch.set_num_threads(max(1, int(job.recipe.resources.cpus_per_worker)))
    # The stream's processes start while this one imports networks, and reads and decodes while it builds them.
    stream = _Stream(ray.train.get_dataset_shard(STREAM))
    steps = _Steps(job.recipe, rank, size)
    clock = clock_of(job.clock, steps.cell.index)
    _, from_step = wait_for(clock.start.remote(), "the run's clock to say where the stream starts")
    steps.next = from_step
    imported()
    from system.train.session import Watchers, train_rank  # noqa: PLC0415  networks take seconds to import

    resume()

    def on_block(number: int) -> None:
        if steps.leads:
            clock.advance.remote(steps.cell.before(number + 1) - 1)

    exporter = Exporter(run=job.recipe.run.name, rank=str(rank))

    def on_step(values: Values) -> None:
        steps.done(values)
        # Of each rank: in rank 0's own numbers another one that starves is a slow sum over ranks.
        exporter.add("tubelet_rank_steps", 1)
        exporter.add("tubelet_rank_data_wait_seconds", values["data_wait"] * values["step_s"])
        if rank == 0:
            job.clock.advance.remote(steps.first_block(), values)
        if steps.leads and clock is not job.clock:
            clock.advance.remote(steps.first_block())

    wishes = _Wishes(job.clock) if rank == 0 else None
    device = _device(job.recipe)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    hardware = hardware_of(gpu, torch.__version__)
    job.clock.landed.remote(my_place("trainers", str(rank), device.type, hardware))
    logs.at(step=from_step)
    logs.log(f"rank {rank} of {size} starts at step {from_step} on {device}", ranks=size, device=str(device))
    tell = lambda report: clock.report.remote(replace(report, cell=steps.cell.index))  # noqa: E731
    edges = Edges(tell, partial(keep_stacks, run_uri(job.recipe)))
    with Watchdog(rank, patience_for(job.recipe.resources.worker_timeout_s), edges) as watchdog:
        train_rank(
            job.recipe,
            job.index_uri,
            from_step,
            lambda: _blocks(stream, clock, steps),
            Watchers(on_block, on_step, wishes.take if wishes else lambda: "", watchdog.at),
            device,
            job.terms,
        )
