"""The probes one after the other, and the plan that follows: what `jobs.plan` calls."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import torch

from system import storage
from system.benchmark.machine import cores, describe
from system.core.plan import StepLayout
from system.data.assemble import layout_for
from system.data.columns import Batch
from system.data.dataset import run_uri
from system.errors import DataError, StorageFault
from system.methods.base import nothing_frozen
from system.planning.capacity import Prices
from system.planning.data_probe import mask_device, probe_data, probe_masks
from system.planning.plan import make_plan
from system.planning.rates import Rate
from system.planning.records import Found, Plan, Wishes
from system.planning.reencode_probe import probe_reencoding, px_of
from system.planning.step_probe import StepFound, probe_step, state_bytes
from system.planning.workers import COPY_BYTES_PER_S, Worker, reckoned, worker_of
from system.recipe import Recipe
from system.section import most

Say = Callable[[str], None]

# What each probe has of the time.
DATA, MASK, STEP, REENCODING = 0.35, 0.1, 0.25, 0.3
# Bytes of the object that shows how fast the run's storage is written: checkpoints are uploaded in parts of this size.
WRITTEN = 16 << 20
# A machine with more running processes than this share of its cores measures them too.
BUSY = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user asks for.

    Attributes:
        gpu: name of an accelerator; None: what is here.
        mfu: share of its peak that a step reaches; None: what is assumed.
        seconds: for all probes together.
        margin: share of cores and actors to spare.
        prices: of hours.
        preemptions_per_day: of the whole run; None: not said.
        restart_s: from a preemption to the next step.
    """

    gpu: str | None
    mfu: float | None
    seconds: float
    margin: float
    prices: Prices
    preemptions_per_day: float | None
    restart_s: float


def plan_run(recipe: Recipe, index_uri: str, asked: Asked, say: Say) -> Plan:
    """Measure what a run's stages do on this machine and reckon the run.

    Args:
        recipe: of the run.
        index_uri: of its index.
        asked: by the user.
        say: takes lines while it goes on.

    Raises:
        RecipeError: if what is asked for contradicts itself or the recipe.
        DataError: if no video can be read, or storage refuses.
        StorageFault: if storage does not answer.
    """
    machine = describe()
    worker = worker_of(recipe, asked.gpu, asked.mfu, machine["device"])
    layout = layout_for(recipe, most(recipe.resources.num_workers))
    if machine["load"][0] > BUSY * cores():
        say(f"this machine is busy (load {machine['load'][0]:g} on {cores()} cores): its rates come out too low")
    say(f"storage and decoding: {DATA * asked.seconds:.0f} s on clips spread over the index")
    maker, data = probe_data(recipe, index_uri, DATA * asked.seconds)
    for bad in data.bad[:3]:
        say(f"  not decoded: {bad}")
    device = mask_device(recipe)
    rate: Rate | None = None
    rows: Batch = {}
    # Where a network's GPU is missing a CPU stands in for the step's sake, and the rate is not kept.
    if device is not None or worker.device is not None:
        say(f"masks: {MASK * asked.seconds:.0f} s")
        rate, rows = probe_masks(recipe, maker, data.clips, device or "cpu", MASK * asked.seconds)
    say("re-encoding: a few of the videos, in layers of the stride")
    reencoded = probe_reencoding(recipe, data.videos, REENCODING * asked.seconds)
    step = _step(recipe, rows, layout, worker, asked, say)
    found = Found(
        storage=data.storage(recipe.data.views),
        decode=data.decode(recipe.data.views),
        mask=None if device is None else rate,
        step=step.rate,
        reencoded=reencoded,
        video_px=sum(map(px_of, data.videos)) / len(data.videos),
        stall_s=step.stall_s,
        state_bytes=step.state_bytes,
        write_bytes_per_s=_written(recipe) if asked.preemptions_per_day else None,
        device_bytes=step.device_bytes,
        assumed=_assumed(recipe, worker, machine["cpu"], asked),
    )
    wishes = Wishes(worker.name, worker.on_gpu, asked.margin, asked.prices, asked.preemptions_per_day, asked.restart_s)
    return make_plan(recipe, maker.plan.num_videos, layout, found, wishes)


def _step(recipe: Recipe, rows: Batch, layout: StepLayout, worker: Worker, asked: Asked, say: Say) -> StepFound:
    if worker.device is None:
        size = state_bytes(recipe)
        return StepFound(reckoned(recipe, worker), size / COPY_BYTES_PER_S, size, None)
    say(f"steps: {STEP * asked.seconds:.0f} s on {worker.name}")
    return probe_step(recipe, rows, layout, torch.device(worker.device), STEP * asked.seconds)


def _written(recipe: Recipe) -> float:
    """Return how many bytes/s one writer puts into the run's storage.

    Raises:
        DataError: if storage refuses, or does not answer.
    """
    uri = storage.join(run_uri(recipe), f".plan-{uuid.uuid4().hex[:8]}")
    data = os.urandom(WRITTEN)
    try:
        began = time.perf_counter()
        storage.write(uri, data)
        took = time.perf_counter() - began
        storage.delete([uri])
    except StorageFault as error:
        raise DataError(f"run.storage: {error}") from error
    return WRITTEN / took


def _assumed(recipe: Recipe, worker: Worker, cpu: str, asked: Asked) -> tuple[str, ...]:
    """Say what the figures rest on besides what was measured."""
    lines = [
        f"every decode actor has a core to itself, as fast as this machine's ({cpu})",
        "read actors, decode actors and workers add up: what ranks say to each other is not counted, and a decode"
        f" actor loses some to Ray (6 to 12% of it where that was measured), which --margin={asked.margin:g} is for",
        "what was read before may come from this machine's memory, and storage then looks faster than it is",
    ]
    if worker.accelerator is not None:
        lines.append(
            f"a step of {worker.name} is reckoned: --mfu={worker.mfu:g} of the peak; a GPU's copy to its host has"
            f" {COPY_BYTES_PER_S / 1e9:g} GB/s"
        )
        if recipe.record.frozen is not nothing_frozen:
            lines.append("networks that targets are made with are not counted in a step")
    if isinstance(recipe.resources.num_workers, tuple) or isinstance(recipe.resources.decode_actors, tuple):
        lines.append("of [min, max] in the recipe, max")
    if asked.preemptions_per_day:
        lines.append(
            f"preemptions come at random, {asked.preemptions_per_day:g} a day of any machine whose loss stops a step;"
            f" --restart-seconds={asked.restart_s:g} from each to the next step"
        )
    if asked.prices != Prices():
        lines.append("GPUs bring no cores with them: every core is counted; what has no price costs nothing")
    return tuple(lines)
