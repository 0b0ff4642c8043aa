"""A method at work: its model, and what it says of one micro-batch. No Ray, no engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from system.core.seeds import Purpose, generator
from system.methods.base import Clips, Networks, nothing_to_count
from system.models.blocks import gather_tokens
from system.models.decoders import set_activation_checkpointing
from system.recipe import Recipe
from system.train.batch import MicroBatch


def build_model(recipe: Recipe, device: torch.device) -> nn.Module:
    """Build the method's model with weights drawn from the run's seed, on a device."""
    seed = int(generator(recipe.run.seed, Purpose.WEIGHTS).integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = recipe.record.build(recipe.model, recipe.grid, recipe.method)
    set_activation_checkpointing(module, recipe.engine.activation_checkpointing)
    return module.to(device)


class Judged(NamedTuple):
    """What a method says of one micro-batch.

    Attributes:
        losses: (B,) by name, per clip.
        histograms: of the labels by name, for the methods that predict codes.
    """

    losses: dict[str, Tensor]
    histograms: dict[str, Tensor]


def judge(
    recipe: Recipe, forward: Callable[..., dict[str, Tensor]], batch: MicroBatch, frozen: Networks | None = None
) -> Judged:
    """Return a method's losses of one micro-batch.

    Args:
        recipe: of the run.
        forward: the model.
        batch: on its device.
        frozen: the method's frozen networks, on the same device.
    """
    method, grid, options = recipe.record, recipe.grid, recipe.method
    if batch.labels is not None:
        return Judged(dict(method.loss(forward(batch.frames, batch.draws), batch.labels, None, options)), {})
    clips = Clips(batch.frames, batch.extra, batch.carried, frozen or {})
    with torch.no_grad():
        wanted = {
            name: gather_tokens(target(clips, grid, options), batch.predicted)
            for name, target in method.targets.items()
        }
        histograms = {}
        if method.count is not nothing_to_count:  # what follows waits for the device
            real = batch.weight > 0
            histograms = dict(method.count({name: values[real] for name, values in wanted.items()}, options))
    predicted = forward(batch.frames, batch.shown, batch.predicted)
    return Judged(dict(method.loss(predicted, wanted, batch.counted, options)), histograms)
