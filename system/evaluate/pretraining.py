"""Training on clips in memory, in one process: the run's own loop and engine, without Ray, storage or decoding.

The stream's place is taken by `scene_blocks`: the same columns, the clips in the order of a run's plan, the masks from
the same draws. So two methods with the same seed see the same clips at the same steps.

B clips of a step, T frames of H x W px, N tokens, R frame pairs.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from system.core.identity import checksum
from system.core.pairs import FramePair
from system.core.plan import EpochPlan, StepLayout
from system.core.seeds import Purpose, generator
from system.data.columns import Batch, objects
from system.data.dataset import run_uri
from system.data.labelling import forward_draws
from system.data.scene_set import SceneSet
from system.models.fit import fit, take
from system.models.fit_tokenizer import fit_tokenizer
from system.models.tokenizer import save_tokenizer
from system.recipe import Recipe
from system.train.hooks import Hooks
from system.train.judging import build_model
from system.train.loop import Loop
from system.train.own_tokenizer import options_for
from system.train.progress import Progress
from system.train.schedule import schedule_of
from system.train.session import frozen_networks
from system.train.torch_engine import TorchEngine

# Clips and frame pairs to flow: (B, R, H, W, 2) float32 px.
FlowOf = Callable[[SceneSet, Sequence[FramePair]], Tensor]

# When the encoder is copied: after these shares of the steps, so that the speed of learning shows.
SHARES = (0.25, 0.5, 1.0)
# Clips whose flow is made at a time.
FLOW_CLIPS = 64
# Clips whose frames a tokenizer is fitted to.
TOKENIZER_CLIPS = 512


@dataclass
class Pretrained:
    """What a pre-training run gave.

    Attributes:
        encoders: copies of the encoder, by the number of steps that it had been trained for.
        losses: of every step, by name: `loss` and its parts.
        cpu_s: processor seconds, fitting a tokenizer included.
    """

    encoders: dict[int, nn.Module] = field(default_factory=dict)
    losses: list[dict[str, float]] = field(default_factory=list)
    cpu_s: float = 0.0


def plan_of(recipe: Recipe, num_clips: int) -> EpochPlan:
    """Return the order of the clips: all of them are shuffled in every epoch."""
    return EpochPlan(num_clips, recipe.run.seed, num_clips, num_clips)


def flow_of_all(recipe: Recipe, scenes: SceneSet, flow_of: FlowOf) -> Tensor | None:
    """Return the flow that a method wants of every clip, (n, R, H, W, 2) float16 px; None where it wants none.

    It does not depend on the draws, so it is made once and not in every epoch. float16 keeps a hundredth of a pixel.
    """
    pairs = recipe.record.pairs(recipe.method, recipe.grid.num_frames)
    if not pairs:
        return None
    starts = range(0, len(scenes), FLOW_CLIPS)
    return torch.cat([flow_of(scenes.part(slice(start, start + FLOW_CLIPS)), pairs).half() for start in starts])


def mask_columns(recipe: Recipe, places: Sequence[tuple[int, int]], flow: Tensor | None) -> Batch:
    """Return the columns that a method's masks are (`data/masking.py`), from the draws that a run would use.

    Args:
        recipe: of the run.
        places: (epoch, position) of each of B clips.
        flow: (B, R, H, W, 2) float32 px, what the method wants.
    """
    method, options, grid, seed = recipe.record, recipe.method, recipe.grid, recipe.run.seed
    noise = np.stack(
        [generator(seed, Purpose.MASK, *place).random((grid.slots, grid.places), np.float32) for place in places]
    )
    made = {"visible": method.mask(noise, flow, grid, options)}
    if method.num_decoded(options, grid) is not None:
        phases = np.array([generator(seed, Purpose.DECODER_MASK, *place).integers(4) for place in places], np.int64)
        made["decoded"] = method.decoded(phases, grid, options)
    if method.num_carried(options, grid):
        assert flow is not None, "a method that carries flow names frame pairs"
        made["carried"] = method.carry(flow, grid, options).numpy()
    return made


def unmixed_labels(recipe: Recipe, places: Sequence[tuple[int, int]], scenes: SceneSet) -> Batch:
    """Return the columns of B labelled clips that are mixed with none (`data/labelling.py`).

    Args:
        recipe: of the run.
        places: (epoch, position) of each clip.
        scenes: the clips.
    """
    made: Batch = {"label": scenes.labels, "other": scenes.labels, "share": np.ones(len(scenes), np.float32)}
    num_draws = recipe.record.num_draws(recipe.method, recipe.model)
    if num_draws:
        made["draws"] = np.stack([forward_draws(recipe.run.seed, place, 0, num_draws) for place in places])
    return made


def scene_blocks(recipe: Recipe, scenes: SceneSet, flow_of: FlowOf) -> Iterator[Batch]:
    """Yield the block of every step without end: B = `train.global_batch` clips with their masks, and their labels."""
    plan, size = plan_of(recipe, len(scenes)), recipe.train.global_batch
    flows = flow_of_all(recipe, scenes, flow_of)
    offsets = recipe.extra_frames
    step = 0
    while True:
        slots = np.arange(step * size, (step + 1) * size)
        videos = plan.videos(step * size, (step + 1) * size)
        clips = scenes.part(videos)
        flow = None if flows is None else flows[torch.from_numpy(videos)].float()
        places = [plan.position(int(slot)) for slot in slots]
        made = mask_columns(recipe, places, flow)
        if offsets:
            made["extra"] = clips.extra_at(offsets)
        if recipe.record.labelled:
            made |= unmixed_labels(recipe, places, clips)
        yield {
            "step": np.full(size, step, np.int64),
            "slot": slots,
            "view": np.zeros(size, np.int64),
            "video_id": videos,
            "start": np.zeros(size, np.int64),
            "pixels": np.array([checksum(clip) for clip in clips.frames], np.uint32),
            "attempt": np.zeros(size, np.int64),
            "notes": objects([""] * size),
            "weight": np.ones(size, np.float32),
            "frames": clips.frames,
            **made,
        }
        step += 1


def fit_own_tokenizer(recipe: Recipe, scenes: SceneSet) -> None:
    """Fit the tokenizer that a method wants to have fitted on its own clips, if it wants one."""
    wanted = recipe.record.to_fit(recipe.method, run_uri(recipe))
    if wanted is None:
        return
    chosen = scenes.frames[:TOKENIZER_CLIPS, :: max(1, recipe.data.num_frames // 4)]
    images = torch.from_numpy(np.ascontiguousarray(chosen)).flatten(0, 1).permute(0, 3, 1, 2)
    fitted = fit_tokenizer([images], options_for(recipe, wanted.num_codes), recipe.run.seed)
    save_tokenizer(fitted.tokenizer, wanted.uri)


def pretrain(recipe: Recipe, scenes: SceneSet, flow_of: FlowOf) -> Pretrained:
    """Pre-train on clips in memory.

    Args:
        recipe: of the run; one view a video. Nothing is checkpointed: the encoder is copied after each of `SHARES`.
        scenes: all clips; their extra frames hold those that the method wants.
        flow_of: where motion comes from, for methods that want it.

    Raises:
        DivergedFault: if the loss or the gradient of several steps in a row is not finite.
    """
    began = time.process_time()
    fit_own_tokenizer(recipe, scenes)
    out = Pretrained()
    model = build_model(recipe, torch.device("cpu"))
    schedule = schedule_of(recipe, len(scenes))
    due = {round(share * schedule.total) for share in SHARES}

    def on_step(progress: Progress, values: dict[str, Any]) -> None:
        out.losses.append({name: values[name] for name in values if name == "loss" or name.startswith("loss/")})
        if progress.step in due:
            encoder = model.encoder
            assert isinstance(encoder, nn.Module)
            out.encoders[progress.step] = copy.deepcopy(encoder)

    train_on(recipe, model, scenes, flow_of, on_step)
    out.cpu_s = time.process_time() - began
    return out


def train_on(
    recipe: Recipe,
    model: nn.Module,
    scenes: SceneSet,
    flow_of: FlowOf,
    on_step: Callable[[Progress, dict[str, Any]], None],
) -> None:
    """Train a model on clips in memory, as a run of one rank does.

    Raises:
        DivergedFault: if the loss or the gradient of several steps in a row is not finite.
    """
    batch = recipe.train.global_batch
    layout = StepLayout(batch, 1, 1, batch, 1)
    engine = TorchEngine(model, recipe.train, recipe.engine, lr_scale=recipe.lr_scale)
    schedule = schedule_of(recipe, len(scenes))
    hooks = Hooks(on_step=on_step)
    loop = Loop(recipe, layout, schedule, engine, torch.device("cpu"), hooks, frozen_networks(recipe))
    loop.run(scene_blocks(recipe, scenes, flow_of), Progress())


def fine_tuning_of(tuned: Recipe, recipe: Recipe, classes: int) -> Recipe:
    """Return a recipe of fine-tuning for the clips, the model and the seed of another recipe, and so many classes."""
    method = tuned.method.model_copy(update={"classes": classes})
    return tuned.model_copy(update={"run": recipe.run, "data": recipe.data, "model": recipe.model, "method": method})


def fine_tune(recipe: Recipe, encoder: nn.Module, scenes: SceneSet) -> tuple[nn.Module, list[float]]:
    """Train a classifier that starts from an encoder.

    Args:
        recipe: of fine-tuning.
        encoder: where it starts from; it is not changed.
        scenes: labelled clips.

    Returns:
        The classifier, and the loss of each step.
    """
    model = build_model(recipe, torch.device("cpu"))
    start = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    take(model, fit(model.state_dict(), start, "the encoder"))
    losses: list[float] = []
    train_on(recipe, model, scenes, _no_flow, lambda _progress, values: losses.append(values["loss"]))
    return model, losses


def _no_flow(_scenes: SceneSet, _pairs: Sequence[FramePair]) -> Tensor:
    raise ValueError("fine-tuning wants no motion")
