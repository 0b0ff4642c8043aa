"""RAY DATA BEGINS HERE: the stream of clips, as one chain of Ray Data calls.

    block numbers -> repartition -> read -> decode (+ mask) -> [mask] -> split over the ranks

Beyond `resources.ranks_per_stream` ranks there are several such streams, one for each cell of ranks. They share the
plan, and the recipe's actors and look-ahead; each has its own executor, clock, gates and part of the store.

Order is exact: one block is one rank's share of a step or an equal part of it, `preserve_order` is on, and the number
of rows that leave a stage follows from the number that enter it. So rank r's sequence is a function of the plan alone,
through retries, lost actors and lost nodes.

Ray's back-pressure counts bytes, and a block's number weighs 8 of them, so without a further limit the coordinator
would queue the whole plan. Two gates hold it: the source hands out numbers in chunks, the next one when the trainers
have come near its end; and a read actor waits until its block is within `data.lookahead` of the trainers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Datasource, ExecutionOptions, ExecutionResources, ReadTask
from ray.data.block import BlockMetadata

from system.collection import paused
from system.core.plan import Cell
from system.data.assemble import (
    Makers,
    StreamSpec,
    cap_of,
    clip_bytes,
    flow_device,
    lookahead,
    mask_stage,
    masks_beside_decoding,
    share_of,
    stage_specs,
    stream_blocks,
)
from system.data.clock import ClockHandle, pass_gate, wait_for
from system.data.columns import Batch, check_chain
from system.data.coordinating import InTurn, coordinator_on
from system.data.draining import WorkToTheEnd
from system.data.growing import GrowByActors
from system.data.landing import my_gpus, my_place
from system.data.placing import device_kind
from system.data.queues import CELL, CLOCK, TellStages
from system.data.reports import PhaseReport, Teller, block_name, block_of
from system.data.sharing import STREAMS, ShareMachines
from system.data.trimming import TrimStatistics
from system.monitoring.export import Exporter
from system.recipe import Recipe
from system.section import Counted, fewest, most

if TYPE_CHECKING:
    from ray.data import DataIterator, Dataset

# Numbers that the source hands out at once: few enough to weigh nothing, many enough that a stream of half a million
# blocks has 500 read tasks (each costs the coordinator an object before the first block moves).
CHUNK = 1000
# What a stage's actors ask for. Where nothing is said, Ray asks for as much as a block has, and an autoscaler starts no
# machine for that of whose kind it does not know how much memory it has.
NO_MEMORY = 0
# Work on a block is told when it has lasted so long, seconds; far below what makes the clock ask for it (STARVED_S).
TELL_S = 1.0


class BlockNumbers(Datasource):
    """The source: the numbers of a stream's blocks, in order, asked of the clock whenever the stream is executed."""

    def __init__(self, spec: StreamSpec, clock: ClockHandle, max_blocks: int) -> None:
        self._spec, self._clock, self._max_blocks = spec, clock, max_blocks

    def estimate_inmemory_data_size(self) -> int | None:
        """Return the size of the numbers, bytes."""
        return 8 * self._max_blocks

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """Return one task for each chunk of numbers; they run one after the other."""
        cell = self._spec.cell
        stream, step = wait_for(self._clock.start.remote(), "the run's clock to say where a stream starts")
        numbers = stream_blocks(self._spec, step, self._max_blocks)
        schema = pa.schema([("stream", pa.int64()), ("block", pa.int64())])
        tasks = []
        for first in range(0, len(numbers), CHUNK):
            chunk = numbers[first : first + CHUNK]
            metadata = BlockMetadata(num_rows=len(chunk), size_bytes=16 * len(chunk), input_files=None, exec_stats=None)
            gate = _Chunk(self._clock, stream, cell, chunk, ahead=max(CHUNK // 2, lookahead(self._spec)))
            tasks.append(ReadTask(gate, metadata, schema=schema))
        return tasks


class _Chunk:
    """One read task: waits until the trainers are near, then gives its numbers."""

    def __init__(self, clock: ClockHandle, stream: int, cell: Cell, numbers: range, *, ahead: int) -> None:
        self._clock, self._stream, self._cell, self._numbers, self._ahead = clock, stream, cell, numbers, ahead

    def __call__(self) -> list[pa.Table]:
        pass_gate(self._clock, self._stream, self._numbers[0], self._ahead)
        blocks = np.array([self._cell.number(own) for own in self._numbers], np.int64)
        return [pa.table({"stream": np.full(len(blocks), self._stream), "block": blocks})]


class _Work:
    """Tells the clock which block an actor works on, if that takes a while, and its end: two messages, no answer.

    A message costs both sides a millisecond, and nobody asks who makes a block that is there in a moment. How long the
    work took is counted and exported.
    """

    def __init__(self, role: Teller, clock: ClockHandle, spec: StreamSpec) -> None:
        self._role, self._clock, self._cell = role, clock, spec.cell.index
        self._exporter = Exporter(run=spec.recipe.run.name, stage=role)
        self._name = (ray.get_runtime_context().get_actor_id() or "")[:8]

    @contextmanager
    def on(self, block: str) -> Iterator[None]:
        told, began = threading.Event(), time.monotonic()

        def tell() -> None:
            told.set()
            report = PhaseReport(self._role, self._name, "work", block, since_s=TELL_S, cell=self._cell)
            self._clock.report.remote(report)

        timer = threading.Timer(TELL_S, tell)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # so that the end is not told before the work
            if told.is_set():
                self._clock.report.remote(PhaseReport(self._role, self._name, None, cell=self._cell))
            self._exporter.add("tubelet_stage_busy_seconds", time.monotonic() - began)
            self._exporter.add("tubelet_stage_blocks", 1)


class _Read:
    def __init__(self, spec: StreamSpec, clock: ClockHandle, makers: Makers) -> None:
        self._clock, self._ahead, self._layout, self._cell = clock, lookahead(spec), spec.layout, spec.cell
        self._stage, self._work = makers.read(spec), _Work("read", clock, spec)

    def __call__(self, batch: Batch) -> Batch:
        (stream,), (block,) = batch["stream"].tolist(), batch["block"].tolist()
        pass_gate(self._clock, stream, self._cell.before(block), self._ahead)
        with self._work.on(block_name(self._layout, block)):
            return self._stage({"block": batch["block"]})


class _Decode:
    def __init__(self, spec: StreamSpec, clock: ClockHandle, makers: Makers) -> None:
        with paused():
            self._stage, self._layout = makers.decode(spec), spec.layout
            self._work = _Work("decode", clock, spec)
            if spec.recipe.needs_motion and masks_beside_decoding(spec.recipe):  # no other mask wants torch
                import torch  # noqa: PLC0415  a second, and half a gigabyte of each actor

                torch.set_num_threads(1)

    def __call__(self, batch: Batch) -> Batch:
        with self._work.on(block_of(self._layout, int(batch["step"][0]), int(batch["slot"][0]))):
            return self._stage(batch)


class _Mask:
    def __init__(self, spec: StreamSpec, clock: ClockHandle) -> None:
        import torch  # noqa: PLC0415  only where masks are made

        insists = "motion.device=cuda" if spec.recipe.motion.device == "cuda" else None
        device = device_kind(my_gpus(), sees_cuda=torch.cuda.is_available(), insists=insists)
        clock.landed.remote(my_place("flow", ray.get_runtime_context().get_actor_id() or "", device))
        self._stage, self._layout = mask_stage(spec, device), spec.layout
        self._work = _Work("mask", clock, spec)

    def __call__(self, batch: Batch) -> Batch:
        with self._work.on(block_of(self._layout, int(batch["step"][0]), int(batch["slot"][0]))):
            return self._stage(batch)


def _pool(size: Counted) -> ActorPoolStrategy:
    low, high = fewest(size), most(size)
    # Two tasks per actor: one at work and one whose block is being fetched.
    return ActorPoolStrategy(min_size=low, max_size=high, max_tasks_in_flight_per_actor=2)


def clip_stream(
    spec: StreamSpec, clock: ClockHandle, makers: Makers | None = None, trainers_on: Sequence[str] = ()
) -> Dataset:
    """Return the stream of clips of one cell; every execution of it starts where the clock says.

    Args:
        spec: what the stream is made of.
        clock: of the run, or of the cell where there are several.
        makers: make the stages that read and decode, where it is not the stream's own that are wanted.
        trainers_on: the trainers' machines. Where decoders have machines of their own, numbers are given out and bytes
            are read beside the trainers: that holds no core, and would keep a machine without decoders from being idle.
    """
    makers = makers or Makers()
    recipe, resources, cell = spec.recipe, spec.recipe.resources, spec.cell
    beside_trainers = InTurn(trainers_on) if trainers_on and resources.decode_resources else None
    check_chain(stage_specs(recipe))
    _configure(recipe, spec, clock)
    source = BlockNumbers(spec, clock, recipe.data.blocks_per_stream)
    place = beside_trainers() if beside_trainers else {}
    numbers = ray.data.read_datasource(source, concurrency=1, num_cpus=0, memory=NO_MEMORY, ray_remote_args=place)
    stream = numbers.repartition(target_num_rows_per_block=1).map_batches(
        _Read,
        fn_constructor_args=(spec, clock, makers),
        batch_size=1,
        compute=_pool(share_of(resources.read_actors, cell)),
        num_cpus=0,
        memory=NO_MEMORY,
        ray_remote_args_fn=beside_trainers,
    )
    stream = stream.map_batches(
        _Decode,
        fn_constructor_args=(spec, clock, makers),
        batch_size=spec.layout.slots_per_block,
        compute=_pool(share_of(resources.decode_actors, cell)),
        num_cpus=1,
        memory=NO_MEMORY,
        resources=resources.decode_resources or None,
    )
    if not masks_beside_decoding(recipe):
        on_gpus = flow_device(recipe) == "cuda"
        stream = stream.map_batches(
            _Mask,
            fn_constructor_args=(spec, clock),
            batch_size=spec.layout.clips_per_block,
            compute=_pool(share_of(resources.mask.actors, cell)),
            num_cpus=0 if on_gpus else 1,
            memory=NO_MEMORY,
            num_gpus=resources.mask.gpus_per_actor if on_gpus else None,
            accelerator_type=resources.mask.accelerator,
        )
    made: Dataset = stream
    made.set_name(recipe.run.name)  # the label of what Ray exports about it
    return made


def _configure(recipe: Recipe, spec: StreamSpec, clock: ClockHandle) -> None:
    """Set this process's DataContext: the one of the driver does not reach the process in which a stream is built."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _target_bytes(spec)
    context.execution_options = execution_options(recipe, spec)
    callbacks: list[Any] = context.custom_execution_callback_classes
    ours = (TrimStatistics, WorkToTheEnd, ShareMachines, GrowByActors, TellStages)
    callbacks += [each for each in ours if each not in callbacks]
    for name, value in ((STREAMS, spec.cell.count), (CLOCK, clock), (CELL, spec.cell.index)):
        context.set_config(name, value)


def _target_bytes(spec: StreamSpec) -> int:
    """Return the size above which Ray would cut a block: twice a block, so that it never cuts one."""
    return max(2 * spec.layout.clips_per_block * clip_bytes(spec.recipe), 1 << 20)


def execution_options(recipe: Recipe, spec: StreamSpec) -> ExecutionOptions:
    """Return the options of a stream: exact order, and a cap on what it keeps in the object store."""
    # Ray reckons with a target's size for each task whose output it does not know yet; a cap of less than a few of
    # those stops a stream of tiny blocks for good.
    block = _target_bytes(spec) // 2
    blocks = max(cap_of(recipe, spec.cell), 4)
    limits = ExecutionResources.for_limits(object_store_memory=blocks * block)
    return ExecutionOptions(preserve_order=True, resource_limits=limits)


def split(stream: Dataset, num_ranks: int, node_id: str | None = None) -> list[DataIterator]:
    """Deal a stream's blocks out to ranks in turn: rank r takes blocks r, r + n, ...

    Args:
        stream: of one cell.
        num_ranks: of the cell.
        node_id: machine on which the stream's coordinator is to live; default: this one.
    """
    with coordinator_on(node_id):
        return stream.streaming_split(num_ranks, equal=True)
