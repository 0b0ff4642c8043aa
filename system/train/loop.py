"""The training loop of one rank: blocks of a stream in, optimizer steps and checkpoints out. No Ray.

A step's loss is the mean over the global batch's real clips. Every rank divides by that count, which the plan gives, so
the mean, the gradient and the update do not depend on how the batch is cut into ranks, blocks and micro-batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from system.core.codes import perplexity
from system.core.plan import StepLayout
from system.core.schedules import lr_at
from system.data.columns import Batch
from system.data.notes import Note, unpack_notes
from system.errors import DataError, DivergedError, StreamFault
from system.methods.base import Networks
from system.recipe import Recipe
from system.train.batch import MicroBatch, micro_batches, num_micro_batches
from system.train.engine import Engine
from system.train.judging import judge
from system.train.progress import Progress
from system.train.telemetry import peak_flops, resident_mb


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps and learning rates of a run.

    Attributes:
        total: steps of the run.
        stop: this start ends before this step.
        warmup: steps of the warm-up.
        peak: highest learning rate.
        final: last learning rate.
    """

    total: int
    stop: int
    warmup: int
    peak: float
    final: float

    def lr(self, step: int) -> float:
        """Return a step's learning rate."""
        return lr_at(step, total=self.total, warmup=self.warmup, peak=self.peak, final=self.final)


def schedule_of(recipe: Recipe, num_videos: int) -> Schedule:
    """Resolve a recipe's steps and learning rates for a number of videos."""
    peak, final = recipe.learning_rates()
    total = recipe.steps(num_videos)
    stop = min(total, recipe.run.stop_at_step or total)
    return Schedule(total, stop, recipe.warmup_steps(num_videos), peak, final)


@dataclass(frozen=True)
class Hooks:
    """What the loop calls besides training; each runs on every rank.

    Attributes:
        on_block: (block number) a block was taken.
        on_step: (progress, values) a step is done; the values are those of metrics.jsonl.
        save: (progress) write a checkpoint; returns when it is committed.
    """

    on_block: Callable[[int], None] = lambda block: None
    on_step: Callable[[Progress, dict[str, Any]], None] = lambda progress, values: None
    save: Callable[[Progress], None] = lambda progress: None


@dataclass(slots=True)
class _StepSums:
    """What one rank adds up during a step."""

    loss: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    histograms: dict[str, Tensor] = field(default_factory=dict)
    clips: Tensor | None = None
    substituted: int = 0
    skipped: int = 0
    fallback: int = 0
    notes: list[Note] = field(default_factory=list)
    wait_s: float = 0.0


class Loop:
    """Trains from a stream.

    Args:
        recipe: of the run.
        layout: how a step is cut for the ranks there are.
        schedule: steps and learning rates.
        engine: with the model.
        device: that the model is on.
        hooks: what else happens.
        frozen: the method's frozen networks, on the device.
    """

    def __init__(
        self,
        recipe: Recipe,
        layout: StepLayout,
        schedule: Schedule,
        engine: Engine,
        device: torch.device,
        hooks: Hooks,
        frozen: Networks | None = None,
    ) -> None:
        self._recipe, self._layout, self._schedule = recipe, layout, schedule
        self._engine, self._device, self._hooks = engine, device, hooks
        self._frozen = frozen or {}
        self._num_micro = num_micro_batches(layout.clips_per_block, layout.blocks_per_rank, recipe.train.micro_batch)
        forward = recipe.record.flops(recipe.model, recipe.grid, recipe.method)
        self._step_flops = 3 * forward * recipe.train.global_batch
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self._peak = peak_flops(name)

    def run(self, blocks: Iterator[Batch], progress: Progress) -> Progress:
        """Train until the schedule's stop, and save at the end.

        Args:
            blocks: this rank's blocks from `progress.step` on, in order.
            progress: what is done.

        Returns:
            What is done now.

        Raises:
            StreamFault: if the stream gives a block of another step, or ends early.
            DataError: if more videos are bad than the recipe allows.
            DivergedError: if the loss or the gradient is not finite.
        """
        saved = progress.step
        while progress.step < self._schedule.stop:
            progress = self._step(blocks, progress)
            if self._due(progress.step):
                self._hooks.save(progress)
                saved = progress.step
            self._refuse_bad(progress, saved)
        return progress

    def _due(self, step: int) -> bool:
        every, keep = self._recipe.checkpoint.every_steps, self._recipe.checkpoint.keep_every_steps
        return step >= self._schedule.stop or step % every == 0 or (keep is not None and step % keep == 0)

    def _refuse_bad(self, progress: Progress, saved: int) -> None:
        limit = self._recipe.data.max_bad_ratio
        if not progress.too_many_bad(limit):
            return
        if saved != progress.step:
            self._hooks.save(progress)  # so that nothing is lost, and the verdicts are kept
        worst = "".join(
            f"\n  video {video}: {reason} ({code})" for video, (code, reason) in list(progress.quarantine.items())[:5]
        )
        raise DataError(
            f"{progress.bad_ratio:.1%} of the last {progress.recent_slots} videos could not be read, more than"
            f" data.max_bad_ratio={limit:g}; mend the data or raise it, and submit again to go on. The first:{worst}"
        )

    def _next_block(self, blocks: Iterator[Batch], step: int, sums: _StepSums) -> Batch:
        before = time.monotonic()
        block = next(blocks, None)
        sums.wait_s += time.monotonic() - before
        if block is None:
            raise StreamFault(f"the stream ended before step {step}")
        found = set(block["step"].tolist())
        if found != {step} or len(block["step"]) != self._layout.clips_per_block:
            raise StreamFault(
                f"step {step} was due, the stream gave {len(block['step'])} clips of step {sorted(found)}"
            )
        return block

    def _step(self, blocks: Iterator[Batch], progress: Progress) -> Progress:
        began = time.monotonic()
        step = progress.step
        sums = _StepSums(torch.zeros((), device=self._device))
        sums.clips = torch.zeros((), device=self._device)
        done = 0
        for part in range(self._layout.blocks_per_rank):
            block = self._next_block(blocks, step, sums)
            self._hooks.on_block(self._layout.first_block(step) + (part + 1) * self._layout.num_ranks - 1)
            self._count(block, sums)
            for batch in micro_batches(block, self._recipe.train.micro_batch, self._device):
                done += 1
                self._forward_backward(batch, sums, last=done == self._num_micro)
        norm = self._engine.step(self._schedule.lr(step))
        totals, notes = self._over_ranks(sums)
        self._refuse_useless(step, totals, norm)
        progress = progress.after(
            self._layout.slots_per_step,
            int(totals["substituted"]),
            int(totals["skipped"]),
            notes,
            int(totals["fallback"]),
        )
        self._hooks.on_step(progress, self._values(step, totals, norm, time.monotonic() - began, sums.wait_s))
        return progress

    def _refuse_useless(self, step: int, totals: dict[str, float], norm: float) -> None:
        """Stop before a step that trained on nothing, or made the weights useless, can reach a checkpoint.

        The values are the same on all ranks, so all of them stop.
        """
        if not (math.isfinite(totals["loss"]) and math.isfinite(norm)):
            raise DivergedError(
                f"step {step}: the loss is {totals['loss']:g} and the gradient's norm {norm:g}; the last checkpoint is"
                " older and sound: lower train.base_lr, set train.clip_grad, or use engine.precision=fp32"
            )
        if totals["skipped"] >= self._layout.slots_per_step:
            raise DataError(
                f"step {step}: not one of its {self._layout.slots_per_step} videos, nor their spares, could be read;"
                " nothing of it was kept. Is the storage mounted, are the decoders installed?"
            )

    def _forward_backward(self, batch: MicroBatch, sums: _StepSums, *, last: bool) -> None:
        parts, histograms = judge(self._recipe, self._engine.forward, batch, self._frozen)
        per_clip = sum(parts.values(), torch.zeros_like(batch.weight))
        # A skipped slot (no video could stand in it) has weight zero and still counts in the mean: its share of the
        # gradient is missing, and the count needs no communication before the first backward.
        loss = (per_clip * batch.weight).sum() / self._recipe.train.global_batch
        self._engine.backward(loss, last=last)
        assert sums.clips is not None
        sums.loss += (per_clip.detach() * batch.weight).sum()
        sums.clips += batch.weight.sum()
        for name, values in parts.items():
            before = sums.parts.get(name, torch.zeros((), device=self._device))
            sums.parts[name] = before + (values.detach() * batch.weight).sum()
        for name, counts in histograms.items():
            sums.histograms[name] = sums.histograms[name] + counts if name in sums.histograms else counts

    def _count(self, block: Batch, sums: _StepSums) -> None:
        views = self._recipe.data.views
        real = block["slot"][::views] >= 0
        sums.skipped += int((real & (block["weight"][::views] == 0)).sum())
        sums.substituted += int((real & (block["weight"][::views] > 0) & (block["attempt"][::views] > 0)).sum())
        if "fallback" in block:
            sums.fallback += int((real & block["fallback"][::views]).sum())
        for text in block["notes"][::views]:
            sums.notes += unpack_notes(text)

    def _over_ranks(self, sums: _StepSums) -> tuple[dict[str, float], list[Note]]:
        """Add up a step's sums over all ranks; notes are exchanged only where there are any."""
        assert sums.clips is not None
        names = sorted(sums.parts)
        counts = torch.tensor(
            [sums.fallback, sums.substituted, sums.skipped, len(sums.notes)], dtype=torch.float64, device=self._device
        )
        flat = torch.cat([torch.stack([sums.loss, sums.clips, *(sums.parts[name] for name in names)]).double(), counts])
        if dist.is_initialized():
            dist.all_reduce(flat)
        loss, clips, *rest = flat.tolist()
        clips = max(clips, 1.0)
        totals = {"loss": loss / clips, "fallback": rest[-4], "substituted": rest[-3], "skipped": rest[-2]}
        if len(names) > 1:
            totals |= {f"loss/{name}": value / clips for name, value in zip(names, rest, strict=False)}
        for name, histogram in sorted(sums.histograms.items()):
            if dist.is_initialized():
                dist.all_reduce(histogram)
            if histogram.sum() > 0:
                totals[f"{name}/perplexity"] = perplexity(histogram)
        notes = sums.notes
        if dist.is_initialized() and rest[-1]:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, notes)
            notes = sorted((note for part in gathered for note in part), key=lambda note: (note.slot, note.attempt))
        return totals, notes

    def _values(self, step: int, totals: dict[str, float], norm: float, step_s: float, wait_s: float) -> dict[str, Any]:
        """Return what metrics.jsonl says about a step."""
        clips_per_s = self._recipe.train.global_batch / step_s
        mfu = self._step_flops / step_s / (self._peak * self._layout.num_ranks) if self._peak else None
        return {
            "step": step,
            "time": time.time(),
            "loss": totals.pop("loss"),
            **totals,
            "lr": self._schedule.lr(step),
            "grad_norm": norm,
            "clips_per_s": clips_per_s,
            "step_s": step_s,
            "data_wait": wait_s / step_s,
            "mfu": mfu,
            "rss_mb": resident_mb(),
        }
