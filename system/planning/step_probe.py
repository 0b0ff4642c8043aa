"""What one worker's step takes, and how long it stands still for a checkpoint: on the device that is here, without Ray.

The plain engine on one device: what ranks say to each other is not in it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from system.benchmark.machine import cores
from system.benchmark.step import OurStep
from system.benchmark.torch_work import finished, threads
from system.core.plan import StepLayout
from system.data.columns import Batch
from system.data.dataset import run_uri
from system.errors import RecipeError
from system.methods.base import Networks
from system.models.tokenizer import Tokenizer, save_tokenizer
from system.planning.rates import Rate, mean_rate
from system.recipe import Recipe
from system.train.batch import MicroBatch, micro_batches, num_micro_batches
from system.train.fragments import MOMENTS
from system.train.own_tokenizer import options_for
from system.train.saving import HostCopy

# float32 weights, and as many values of each of Adam's moments.
STATE_BYTES = 4 * (1 + len(MOMENTS))


@dataclass(frozen=True, slots=True)
class StepFound:
    """What a step on this device says.

    Attributes:
        rate: of one worker.
        stall_s: for copying the whole training state to the host, on one rank.
        state_bytes: of weights and moments.
        device_bytes: most that was allocated on a GPU; None on a CPU.
    """

    rate: Rate
    stall_s: float
    state_bytes: int
    device_bytes: int | None


def state_bytes(recipe: Recipe) -> int:
    """Return the bytes of a recipe's weights and moments, without making them."""
    with torch.device("meta"):
        module = recipe.record.build(recipe.model, recipe.grid, recipe.method)
    return STATE_BYTES * sum(param.numel() for param in module.parameters())


def probe_step(recipe: Recipe, rows: Batch, layout: StepLayout, device: torch.device, seconds: float) -> StepFound:
    """Take steps on a block of the run until time is up.

    Args:
        recipe: of the run.
        rows: some of its clips with their masks; as many as a micro-batch has are made of them.
        layout: how a step is cut for the run's workers.
        device: of a worker.
        seconds: for all of it; a step of a large model may take longer.

    Raises:
        RecipeError: if a micro-batch does not fit into the GPU's memory.
    """
    plain = recipe.engine.model_copy(
        update={"name": "torch", "compile": recipe.engine.compile and device.type == "cuda"}
    )
    probed = recipe.model_copy(update={"engine": plain})
    share = layout.clips_per_block * layout.blocks_per_rank
    fewer = min(recipe.train.micro_batch, layout.clips_per_block)
    used = min(cores(), max(1, int(recipe.resources.cpus_per_worker)))
    with threads(used):
        try:
            step = OurStep(probed, _batch(rows, 1, device), frozen_networks(recipe, device))
            if device.type == "cpu":  # a micro-batch of a large model takes minutes
                fewer = min(fewer, max(1, int(seconds / 4 / _one_clip_s(step))))
            step.batch = _batch(rows, fewer, device)
            forward, update = _timed(step, device, seconds)
        except torch.OutOfMemoryError as error:
            raise RecipeError(_too_large(recipe, fewer, torch.cuda.get_device_name(device))) from error
        stall, size = _copied(step)
    each, off = mean_rate(forward, fewer)
    turns = num_micro_batches(layout.clips_per_block, layout.blocks_per_rank, recipe.train.micro_batch)
    whole = share / each + sum(update) / len(update)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{used} threads of a CPU"
    clips = recipe.train.micro_batch
    how = f"{len(forward)} micro-batches of {fewer} clips on {where}; a step has {turns} of up to {clips}"
    most = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return StepFound(Rate(share / whole, how, off), stall, size, most)


def _too_large(recipe: Recipe, clips: int, device: str) -> str:
    """Say that so many clips do not fit into a device's memory, and what may."""
    ways = [f"train.micro_batch={clips // 2}"] if clips > 1 else []
    ways += [] if recipe.engine.activation_checkpointing else ["engine.activation_checkpointing=true"]
    return (
        f"train.micro_batch={recipe.train.micro_batch}: the memory of {device} has no room for {clips} clips at"
        f" a time; use {', or '.join([*ways, 'a smaller model.size'])}"
    )


def _batch(rows: Batch, clips: int, device: torch.device) -> MicroBatch:
    """Return a micro-batch of so many clips: the rows, over again where there are too few."""
    chosen = np.arange(clips) % len(rows["visible"])
    block = {name: values[chosen] for name, values in rows.items() if values.dtype != object}
    block["weight"] = np.ones(clips, np.float32)
    return next(micro_batches(block, clips, device))


def _one_clip_s(step: OurStep) -> float:
    """Return what a clip's forward and backward take, once what the first one makes is there."""
    step.loss().backward()  # type: ignore[no-untyped-call]
    return _seconds(lambda: step.loss().backward())  # type: ignore[no-untyped-call]


def _timed(step: OurStep, device: torch.device, seconds: float) -> tuple[list[float], list[float]]:
    """Return the seconds of forward and backward of each micro-batch, and of each update of the weights."""

    def forward() -> int:
        step.engine.backward(step.loss(), last=True)
        return 1

    def update() -> int:
        step.engine.step(1e-4)
        return 1

    works = [finished(work, device) for work in (forward, update)]
    for work in works:  # memory is taken and kernels are chosen in the first one
        work()
    took: list[list[float]] = [[], []]
    until = time.perf_counter() + seconds
    while not took[0] or time.perf_counter() < until:
        for times, work in zip(took, works, strict=True):
            times.append(_seconds(work))
    return took[0], took[1]


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _copied(step: OurStep) -> tuple[float, int]:
    """Return how long copying the training state to the host takes, its memory taken before as in a run; its bytes."""
    copy, fragments = HostCopy(), step.engine.fragments()
    copy.reserve(fragments)
    return _seconds(lambda: copy.of(fragments)), sum(part.values.nbytes for part in fragments)


def frozen_networks(recipe: Recipe, device: torch.device) -> Networks:
    """Return the networks that a method's targets are made with; one that is fitted before training stands in unfitted.

    Raises:
        WeightsError: if one that the recipe names is missing or another one.
    """
    record, folder = recipe.record, run_uri(recipe)
    with tempfile.TemporaryDirectory() as scratch:
        wanted = record.to_fit(recipe.method, scratch)
        if wanted is not None:
            save_tokenizer(Tokenizer(options_for(recipe, wanted.num_codes).config), wanted.uri)
            folder = scratch
        networks = record.frozen(recipe.method, recipe.grid, folder)
    return {name: module.to(device) for name, module in networks.items()}
