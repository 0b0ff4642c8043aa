"""What Ray Train is given: the job, and how its stream is made and dealt out to the ranks.

At each start of the worker group the newest whole checkpoint is picked once, in `ClipDataConfig.configure`: the stream
starts at its step, and the workers load it. So stream and weights cannot disagree.

Without torch: a process of its own makes the stream, and every start of a run waits for what that one imports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray.data
import ray.train
from ray.train import DataConfig

from system.data.assemble import StreamSpec, cells_for, layout_for
from system.data.clock import ClockHandle, make_clock, wait_for
from system.data.dataset import run_uri
from system.data.index import Index
from system.data.pipeline import clip_stream, execution_options, split
from system.recipe import Recipe
from system.train import checkpoint
from system.train.hooks import Terms
from system.train.progress import Progress, progress_from
from system.train.schedule import schedule_of

if TYPE_CHECKING:
    from ray.data import DataIterator, Dataset

# The name under which the workers find their stream.
STREAM = "clips"


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
        """Return one iterator a rank. Called at each start of the worker group; the dataset given is a stand-in.

        With several cells, each one's coordinator and clock live where its first rank does: all of them would be too
        much for one machine, and the group does not outlive that machine anyway.
        """
        recipe, clock = self._job.recipe, self._job.clock
        found = checkpoint.latest(run_uri(recipe))
        progress = progress_from(found.state["progress"]).at_start() if found else Progress()
        layout = layout_for(recipe, world_size)
        index = Index(self._job.index_uri)
        stop = schedule_of(recipe, index.num_videos).stop
        cells = cells_for(recipe, world_size)
        nodes = [worker_node_ids[cell.first] if worker_node_ids and len(cells) > 1 else None for cell in cells]
        clocks = [make_clock(clock, node) for node in nodes] if len(cells) > 1 else []
        wait_for(clock.keep.remote(clocks), "the run's clock to hear of the cells' clocks")
        iterators: list[DataIterator] = []
        for cell, node, own in zip(cells, nodes, clocks or [clock], strict=True):
            spec = StreamSpec(recipe, index.uri, layout, stop, dict(progress.quarantine), cell)
            first = cell.before(layout.first_block(progress.step))
            wait_for(own.open.remote(progress.step, first), "the run's clock to open the first stream")
            near = (worker_node_ids or [])[cell.first : cell.first + cell.size]
            stream = clip_stream(spec, own, trainers_on=list(dict.fromkeys(near)))
            stream.context.execution_options = execution_options(recipe, spec)
            iterators += split(stream, cell.size, node)
        return [{STREAM: iterator} for iterator in iterators]


def stand_in() -> Dataset:
    """Return the dataset that Ray Train is given: the real one is made in `configure`, which knows the ranks."""
    return ray.data.range(1)


def work(job: Job) -> None:
    """Train one rank. What Ray Train is given: only a worker imports what it needs."""
    from system.train.worker import train_worker  # noqa: PLC0415

    train_worker(job)
