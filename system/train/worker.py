"""RAY TRAIN BEGINS HERE: the function that every worker runs, and how a stream is dealt out to the workers.

At each start of the worker group the newest whole checkpoint is picked once, in `ClipDataConfig.configure`: the stream
starts at its step, and the workers load it. So stream and weights cannot disagree.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import ray.data
import ray.train
import torch
import torch.distributed as dist
from ray.train import DataConfig
from ray.train.torch import TorchConfig, get_device
from ray.train.torch.config import _TorchBackend

from system.data.assemble import StreamSpec, layout_for
from system.data.clock import ClockHandle, Wish, wait_for
from system.data.columns import Batch
from system.data.dataset import run_uri
from system.data.index import Index
from system.data.pipeline import clip_stream, execution_options, my_gpus, my_place, split
from system.data.placing import device_kind
from system.errors import StreamFault
from system.recipe import Recipe
from system.train import checkpoint
from system.train.hooks import Terms
from system.train.progress import Progress, progress_from
from system.train.schedule import schedule_of
from system.train.sums import Wanted
from system.train.watchdog import Edges, Watchdog, keep_stacks, patience_for

if TYPE_CHECKING:
    from ray.data import DataIterator, Dataset

    from system.train.session import Values

# The name under which the workers find their stream.
STREAM = "clips"
# A collective gives up so much later than a rank's watchdog, seconds.
WATCHDOG_FIRST_S = 60


@dataclass(frozen=True)
class Job:
    """What travels to the workers: plain values and the clock's handle."""

    recipe: Recipe
    index_uri: str
    clock: ClockHandle
    terms: Terms = field(default_factory=Terms)


class ClipDataConfig(DataConfig):
    """Makes the streams of a worker group when its size is known, and deals them out to the ranks."""

    def __init__(self, job: Job) -> None:
        super().__init__(datasets_to_split=[STREAM])
        self._job = job

    def configure(
        self,
        datasets: dict[str, Dataset],
        world_size: int,
        worker_handles: list[Any] | None,
        worker_node_ids: list[str] | None,
        **kwargs: Any,
    ) -> list[dict[str, DataIterator]]:
        """Return one iterator a rank. Called at each start of the worker group; the dataset given is a stand-in."""
        recipe, clock = self._job.recipe, self._job.clock
        found = checkpoint.latest(run_uri(recipe))
        progress = progress_from(found.state["progress"]).at_start() if found else Progress()
        layout = layout_for(recipe, world_size)
        index = Index(self._job.index_uri)
        stop = schedule_of(recipe, index.num_videos).stop
        spec = StreamSpec(recipe, index.uri, layout, stop, dict(progress.quarantine))
        first = layout.first_block(progress.step)
        wait_for(clock.open.remote(progress.step, first), "the run's clock to open the first stream")
        stream = clip_stream(spec, clock)
        stream.context.execution_options = execution_options(recipe, spec)
        return [{STREAM: iterator} for iterator in split(stream, world_size)]


class GroupConfig(TorchConfig):
    """The workers' process group: NCCL where every one of them was given a GPU and sees it, else gloo.

    Ray's own rule looks at what was asked for alone, and a GPU that Ray counts is not one that torch can use.
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Return what Ray Train sets the group up with."""
        return _GroupBackend


class _GroupBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        given = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        sees = given and all(worker_group.execute(torch.cuda.is_available))
        # The watchdogs speak first: they know who waits for whom, and a collective that gives up does not.
        patience = backend_config.timeout_s + WATCHDOG_FIRST_S
        backend = "nccl" if sees else "gloo"
        super().on_start(worker_group, replace(backend_config, backend=backend, timeout_s=patience))


def _device(recipe: Recipe) -> torch.device:
    """Return this worker's device: of the kind that its process group speaks for."""
    insists = "resources.use_gpu=true" if recipe.resources.use_gpu is True else None
    kind = device_kind(my_gpus(), sees_cuda=torch.cuda.is_available(), insists=insists)
    device = get_device() if kind == "cuda" and dist.get_backend() == "nccl" else torch.device("cpu")
    # Machines with GPUs show them to processes that have none, and DeepSpeed would take one.
    os.environ["DS_ACCELERATOR"] = device.type
    return device


def stand_in() -> Dataset:
    """Return the dataset that Ray Train is given: the real one is made in `configure`, which knows the ranks."""
    return ray.data.range(1)


def _blocks(shard: DataIterator, clock: ClockHandle, rank: int, steps: _Steps) -> Iterator[Batch]:
    """Yield this rank's blocks; when a stream has given its last one, the next stream follows at the next step."""
    while True:
        taken = 0
        # Whole blocks, as they come; Ray's annotation does not know that None means that.
        for block in shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):  # type: ignore[arg-type]
            taken += 1
            yield block
        if not taken:
            raise StreamFault(f"a stream for step {steps.next} gave no block")
        if rank == 0:  # all ranks wait for each other at the next stream's start, so one may say where it begins
            wait_for(clock.open.remote(steps.next, steps.first_block()), "the run's clock to open the next stream")


class _Steps:
    """Which step is next, for the start of the next stream."""

    def __init__(self, recipe: Recipe, size: int, step: int) -> None:
        self._layout = layout_for(recipe, size)
        self.next = step

    def done(self, values: Values) -> None:
        self.next = int(values["step"]) + 1

    def first_block(self) -> int:
        return self._layout.first_block(self.next)


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
    # Here, where it is wanted: this file is also read by Ray Train's controller and by what deals out the stream, whose
    # start a run's start waits for, and networks take seconds to import.
    from system.train.session import Watchers, train_rank  # noqa: PLC0415

    for name in ("ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(max(1, int(job.recipe.resources.cpus_per_worker)))
    shard = ray.train.get_dataset_shard(STREAM)
    _, from_step = wait_for(job.clock.start.remote(), "the run's clock to say where the stream starts")
    steps = _Steps(job.recipe, size, from_step)

    def on_block(number: int) -> None:
        if rank == 0:
            job.clock.advance.remote(number)

    def on_step(values: Values) -> None:
        steps.done(values)
        if rank == 0:
            job.clock.advance.remote(steps.first_block(), values)

    wishes = _Wishes(job.clock) if rank == 0 else None
    device = _device(job.recipe)
    job.clock.landed.remote(my_place("trainers", str(rank), device.type))
    edges = Edges(job.clock.report.remote, partial(keep_stacks, run_uri(job.recipe)))
    with Watchdog(rank, patience_for(job.recipe.resources.worker_timeout_s), edges) as watchdog:
        train_rank(
            job.recipe,
            job.index_uri,
            from_step,
            lambda: _blocks(shard, job.clock, rank, steps),
            Watchers(on_block, on_step, wishes.take if wishes else lambda: "", watchdog.at),
            device,
            job.terms,
        )
