"""One optimizer step of VideoMAE: ours beside Hugging Face's, and the operations beside what the device multiplies.

Ours is what the training loop runs: the method's model, target and loss, and the plain engine with its AdamW. Batches
are ready on the device. Runs without Ray, DeepSpeed and PyAV.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from system.benchmark.clips import clips, noise
from system.benchmark.conventional_step import ConventionalStep, conventional_model, installed
from system.benchmark.line import Line, Target
from system.benchmark.machine import cores
from system.benchmark.matrix_rate import matrix_rate
from system.benchmark.stages import Asked
from system.benchmark.timing import interleaved
from system.benchmark.torch_work import finished, threads
from system.core.accelerators import peak_flops
from system.data.columns import Batch
from system.methods.base import Networks
from system.models.sizes import shapes
from system.recipe import Recipe
from system.train.batch import MicroBatch, micro_batches
from system.train.engine import BatchShape, make_engine
from system.train.judging import build_model, judge

Precision = Literal["fp32", "bf16"]
MASK_RATIO = 0.9
CPU_RATIO = 1.25
# A step of ViT-B takes seconds on a CPU.
CPU_REPEATS = 3
# Steps of one turn on a GPU.
GPU_STEPS = 10


@dataclass(frozen=True, slots=True)
class Case:
    """One line.

    Attributes:
        size: of the model.
        precision: of the step.
        clips: of a step, which is one micro-batch.
        mfu: share of the device's peak to reach, percent; None: a ratio to the conventional step.
    """

    size: Literal["tiny", "base", "large"]
    precision: Precision
    clips: int
    mfu: float | None = None

    @property
    def name(self) -> str:
        """Return what a reader calls it."""
        return f"ViT-{self.size[0].upper()} {self.precision}"


CPU_CASES = (Case("base", "fp32", 2), Case("base", "bf16", 2))
GPU_CASES = (Case("base", "bf16", 64, mfu=45.0), Case("large", "bf16", 32, mfu=55.0))
SHORT_CASES = (Case("tiny", "fp32", 1), Case("tiny", "bf16", 1))


def measure(asked: Asked) -> Sequence[Line]:
    """Measure the step of each size and precision that the device is asked for."""
    device = torch.device(asked.device)
    if not installed():
        asked.say("transformers is not installed (the extra `benchmark`): a step has nothing to be compared with")
    cases = SHORT_CASES if asked.short else GPU_CASES if device.type == "cuda" else CPU_CASES
    lines: list[Line] = []
    with threads(1 if asked.short else cores()):
        for case in cases:
            lines += _that_fits(asked, case, device)
    return lines


def _that_fits(asked: Asked, case: Case, device: torch.device) -> Sequence[Line]:
    """Measure a case, with half of the clips where the device has not the memory."""
    while True:
        try:
            return _lines(asked, case, device)
        except torch.OutOfMemoryError:
            if case.clips == 1:
                raise
        gc.collect()
        torch.cuda.empty_cache()
        case = replace(case, clips=case.clips // 2)
        asked.say(f"{case.name}: out of memory, so {case.clips} clips a step")


def recipe_of(case: Case, device: torch.device, *, short: bool) -> Recipe:
    """Return the recipe of a step: VideoMAE, tubes, the plain engine; compiled on a GPU."""
    return Recipe.model_validate(
        {
            "data": {"uri": "synthetic://moving", "num_frames": 4 if short else 16, "size": 64 if short else 224},
            "model": {"size": case.size, **({"depth": 2, "decoder_depth": 1} if short else {})},
            "method": {"name": "videomae", "mask_ratio": 0.75 if short else MASK_RATIO},
            "train": {"global_batch": case.clips, "micro_batch": case.clips, "steps": 1000},
            "engine": {"name": "torch", "precision": case.precision, "compile": device.type == "cuda" and not short},
        }
    )


class OurStep:
    """One step as the training loop takes it.

    Args:
        recipe: of the model; its micro-batch is a step.
        batch: on its device.
        frozen: the method's frozen networks, on the same device.
    """

    def __init__(self, recipe: Recipe, batch: MicroBatch, frozen: Networks | None = None) -> None:
        device = batch.frames.device
        model = build_model(recipe, device).train()
        clips = len(batch.frames)
        shape = BatchShape(clips, 1)
        self.engine = make_engine(model, recipe.train, recipe.engine, shape, lr_scale=recipe.lr_scale)
        self._recipe, self.batch, self._frozen = recipe, batch, frozen

    def loss(self) -> torch.Tensor:
        """Return the loss of the batch."""
        judged = judge(self._recipe, self.engine.forward, self.batch, self._frozen)
        per_clip = sum(judged.losses.values(), torch.zeros_like(self.batch.weight))
        return (per_clip * self.batch.weight).sum() / self._recipe.train.global_batch

    def __call__(self) -> int:
        """Take a step and return its clips."""
        self.engine.backward(self.loss(), last=True)
        self.engine.step(1e-4)
        return len(self.batch.frames)


def ready(asked: Asked, recipe: Recipe, device: torch.device) -> tuple[MicroBatch, NDArray[np.bool_]]:
    """Return a batch on the device, and its `visible` (B, N)."""
    count, grid = recipe.train.micro_batch, recipe.grid
    few = min(count, 8)  # drawn clips take a while, and what they show costs nothing
    frames = np.concatenate([clips(asked, few, grid)] * -(-count // few))[:count]
    visible = recipe.record.mask(noise(count, grid), None, grid, recipe.method)
    block: Batch = {"frames": frames, "visible": visible, "weight": np.ones(count, np.float32)}
    return next(micro_batches(block, count, device)), visible


def _lines(asked: Asked, case: Case, device: torch.device) -> Sequence[Line]:
    recipe = recipe_of(case, device, short=asked.short)
    batch, visible = ready(asked, recipe, device)
    times = GPU_STEPS if device.type == "cuda" else 1
    contenders: dict[str, Callable[[], int]] = {"ours": finished(OurStep(recipe, batch), device, times)}
    if installed():
        model = conventional_model(recipe.grid, *shapes(recipe.model)).to(device)
        other = ConventionalStep(model, batch.frames, visible, bf16=case.precision == "bf16")
        contenders["conventional"] = finished(other, device, times)
    found = interleaved(contenders, min(asked.repeats, CPU_REPEATS) if device.type == "cpu" else asked.repeats)
    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    rate = matrix_rate(device, dtype, short=asked.short)
    flops = 3 * recipe.record.flops(recipe.model, recipe.grid, recipe.method)
    where = f"compiled, on {device.type}" if recipe.engine.compile else f"{torch.get_num_threads()} threads of a CPU"
    line = Line(
        "step",
        case.name,
        "clips/s",
        found["ours"].median,
        found["conventional"].median if "conventional" in found else None,
        rate / flops,
        () if case.mfu else (Target("ratio", CPU_RATIO),),
        repeats=len(found["ours"].rates),
        spread=found["ours"].spread,
        says=f"{case.clips} clips a step, {where}; conventional: Hugging Face's VideoMAEForPreTraining with torch's"
        f" AdamW, the same masks; limit: {flops / 1e9:.0f} GFLOP a clip at {rate / 1e9:.0f} GFLOP/s, the best of a few"
        " products",
    )
    return [line] if case.mfu is None else [line, _mfu_line(line, case.mfu, flops, rate, device)]


def _mfu_line(line: Line, wanted: float, flops: float, rate: float, device: torch.device) -> Line:
    """Return what share of the device's peak a step reaches, percent."""
    name = torch.cuda.get_device_name(device)
    peak = peak_flops(name)
    return replace(
        line,
        name=f"{line.name}, MFU",
        unit="%",
        ours=100 * line.ours * flops / (peak or rate),
        conventional=None if line.conventional is None else 100 * line.conventional * flops / (peak or rate),
        limit=100 * rate / (peak or rate),
        targets=(Target("at_least", wanted),),
        says=f"of {name}'s peak by its data sheet"
        if peak
        else f"of the measured rate: {name}'s peak is not known here",
    )
