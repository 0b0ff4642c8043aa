"""The training loop of one rank: blocks of a stream in, optimizer steps and checkpoints out. No Ray.

A step's loss is the mean over the global batch's real clips. Every rank divides by that count, which the plan gives, so
the mean, the gradient and the update do not depend on how the batch is cut into ranks, blocks and micro-batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch

from system.core.accelerators import peak_flops
from system.core.plan import StepLayout
from system.data.assemble import masks_beside_decoding
from system.data.columns import Batch
from system.errors import DataError, DivergedFault, StreamFault
from system.methods.base import Networks
from system.recipe import Recipe
from system.train.batch import MicroBatch, micro_batches, num_micro_batches
from system.train.engine import Engine
from system.train.goodput import Seconds
from system.train.hooks import Hooks
from system.train.judging import judge
from system.train.ledger import SAMPLE_WORDS
from system.train.progress import Progress, Update
from system.train.recorder import Recorder, SampleFn
from system.train.schedule import Schedule
from system.train.sums import StepSums, StepTotals, Wanted, over_ranks
from system.train.telemetry import resident_mb
from system.train.torch_engine import rank_and_size


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
        self._frozen, self._terms = frozen or {}, hooks.terms
        self._num_micro = num_micro_batches(layout.clips_per_block, layout.blocks_per_rank, recipe.train.micro_batch)
        forward = recipe.record.flops(recipe.model, recipe.grid, recipe.method)
        self._step_flops = 3 * forward * recipe.train.global_batch
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self._peak = peak_flops(name)
        self._recorder = Recorder(0)
        self._seconds = Seconds(self._terms.reached)
        self._bad_steps: dict[int, str] = {}
        self._begun_at, self._save_wanted = -1, False

    def run(self, blocks: Iterator[Batch], progress: Progress) -> Progress:
        """Train until the schedule's stop or until the driver wants it to end, and save there.

        Args:
            blocks: this rank's blocks from `progress.step` on, in order.
            progress: what is done.

        Returns:
            What is done now.

        Raises:
            StreamFault: if the stream gives a block of another step, or ends early.
            DataError: if more videos are bad than the recipe allows.
            DivergedFault: if the loss or the gradient of several steps in a row is not finite.
        """
        self._begun_at, self._save_wanted = progress.step, False
        self._recorder = Recorder(progress.step, sample_of(self._recipe, self._layout), SAMPLE_WORDS)
        self._seconds = Seconds(self._terms.reached)
        wanted: Wanted = ""
        while progress.step < self._schedule.stop and wanted != "stop":
            began = time.monotonic()
            progress, values, totals, wait_s = self._step(blocks, progress)
            wanted = totals.wanted
            checkpoint_s = self._keep(progress, totals)
            self._seconds.step(progress.step - 1, wait_s, checkpoint_s)
            values |= self._times(time.monotonic() - began - checkpoint_s, (wait_s, totals.wait_s), checkpoint_s)
            self._hooks.on_step(progress, values)
            self._refuse_streak(progress)
            self._refuse_bad(progress)
        self._hooks.at("checkpoint", f"{progress.step}, the last one")
        self._hooks.saver.finish()
        return progress

    def _keep(self, progress: Progress, totals: StepTotals) -> float:
        """Go on with the checkpoint under way, begin one where it is time, and return how long that took, seconds."""
        began = time.monotonic()
        self._hooks.at("checkpoint", str(progress.step))
        if totals.written == self._layout.num_ranks:
            self._hooks.saver.commit()
        self._save_wanted |= totals.wanted == "save"
        if self._due(progress, totals.wanted):
            self._begin(progress)
        return time.monotonic() - began

    def _begin(self, progress: Progress) -> None:
        self._begun_at, self._save_wanted = progress.step, False
        self._hooks.saver.begin(progress, self._recorder.taken(self._device))

    def _due(self, progress: Progress, wanted: Wanted) -> bool:
        step = progress.step
        if progress.streak >= self._recipe.train.max_nonfinite:
            return False
        if step >= self._schedule.stop or wanted == "stop":
            return True
        if progress.streak:  # what comes of it is not known yet: nothing newer than the last good state is kept
            return False
        every, keep = self._recipe.checkpoint.every_steps, self._recipe.checkpoint.keep_every_steps
        return self._save_wanted or step % every == 0 or (keep is not None and step % keep == 0)

    def _refuse_streak(self, progress: Progress) -> None:
        """Stop when the gradients of several steps in a row were useless: the weights may be, too."""
        limit = self._recipe.train.max_nonfinite
        if progress.streak < limit:
            return
        self._hooks.saver.finish()
        first, last = min(self._bad_steps), max(self._bad_steps)
        raise DivergedFault(
            f"the loss or the gradient was not finite in {progress.streak} steps in a row, {first} to {last}"
            f" (train.max_nonfinite={limit})",
            dict(self._bad_steps),
        )

    def _refuse_bad(self, progress: Progress) -> None:
        limit = self._recipe.data.max_bad_ratio
        if not progress.too_many_bad(limit):
            return
        if self._begun_at != progress.step:  # so that nothing is lost, and the verdicts are kept
            self._begin(progress)
        self._hooks.saver.finish()
        worst = "".join(
            f"\n  video {video}: {reason} ({code})" for video, (code, reason) in list(progress.quarantine.items())[:5]
        )
        raise DataError(
            f"{progress.bad_ratio:.1%} of the last {progress.recent_slots} videos could not be read, more than"
            f" data.max_bad_ratio={limit:g}; mend the data or raise it, and submit again to go on. The first:{worst}"
        )

    def _next_block(self, blocks: Iterator[Batch], number: int, sums: StepSums) -> Batch:
        step = number // self._layout.blocks_per_step
        self._hooks.at("data", f"block {number} of step {step}")
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

    def _step(self, blocks: Iterator[Batch], progress: Progress) -> tuple[Progress, dict[str, Any], StepTotals, float]:
        step, layout = progress.step, self._layout
        sums = StepSums(self._device)
        skipped = self._terms.skips.get(step)
        done = 0
        for part in range(layout.blocks_per_rank):
            first = layout.first_block(step) + part * layout.num_ranks
            block = self._next_block(blocks, first + rank_and_size()[0], sums)
            self._hooks.on_block(first + layout.num_ranks - 1)
            sums.count(block, self._recipe.data.views)
            self._recorder.take(step, block)
            if skipped is not None:
                continue
            for batch in micro_batches(block, self._recipe.train.micro_batch, self._device):
                done += 1
                self._hooks.at("compute", f"micro-batch {done} of {self._num_micro} of step {step}")
                self._forward_backward(step, batch, sums, last=done == self._num_micro)
        norm, why = math.nan, skipped
        if skipped is None:
            self._hooks.at("update", f"step {step}")
            norm = self._engine.step(self._schedule.lr(step))
            why = None if math.isfinite(norm) else f"the gradient's norm is {norm:g}"
        self._hooks.at("collective", f"the sums of step {step}")
        saver = self._hooks.saver
        totals = over_ranks(sums, layout.slots_per_step, written=saver.written(), wanted=self._hooks.wanted())
        self._refuse_useless(step, totals)
        if why is not None and skipped is None:
            why += f", the loss {totals.values['loss']:g}"
            self._bad_steps = {**(self._bad_steps if progress.streak else {}), step: why}
        self._recorder.end_step(totals.notes, why)
        update: Update = "taken" if why is None else "not finite" if skipped is None else "skipped"
        values = {"step": step, "time": time.time(), **totals.values, "lr": self._schedule.lr(step), "grad_norm": norm}
        return progress.after(totals.counts, totals.notes, update), values, totals, sums.wait_s

    def _refuse_useless(self, step: int, totals: StepTotals) -> None:
        """Stop before a step that trained on nothing can reach a checkpoint. All ranks have the same totals."""
        if totals.counts.skipped >= self._layout.slots_per_step:
            raise DataError(
                f"step {step}: not one of its {self._layout.slots_per_step} videos, nor their spares, could be read;"
                " nothing of it was kept. Is the storage mounted, are the decoders installed?"
            )

    def _forward_backward(self, step: int, batch: MicroBatch, sums: StepSums, *, last: bool) -> None:
        judged = judge(self._recipe, self._engine.forward, batch, self._frozen)
        per_clip = sums.judged(judged.losses, judged.histograms, batch.weight)
        # A skipped slot (no video could stand in it) has weight zero and still counts in the mean: its share of the
        # gradient is missing, and the count needs no communication before the first backward.
        loss = (per_clip * batch.weight).sum() / self._recipe.train.global_batch
        if last:  # its backward ends with the sum over ranks, where a rank waits for the others
            self._hooks.at("collective", f"the gradients of step {step}")
        # One exactly, and NaN where the loss is not finite: a gradient that looks sound does not come of such a loss.
        self._engine.backward(loss * (1 + 0 * loss.detach()), last=last)

    def _times(self, step_s: float, waits_s: tuple[float, float], checkpoint_s: float) -> dict[str, Any]:
        """Return what metrics.jsonl says about a step's time; waits for blocks: this rank's, and the mean of all."""
        return {
            "clips_per_s": self._recipe.train.global_batch / step_s,
            "step_s": step_s,
            "data_wait": waits_s[0] / step_s,
            "data_wait_ranks": waits_s[1] / step_s,
            "checkpoint_s": checkpoint_s,
            "mfu": self._step_flops / step_s / (self._peak * self._layout.num_ranks) if self._peak else None,
            "rss_mb": resident_mb(),
            "seconds": dict(self._seconds.parts),
        }


def sample_of(recipe: Recipe, layout: StepLayout) -> SampleFn | None:
    """Return what samples a step's mask bits, where a network makes the masks."""
    if masks_beside_decoding(recipe):
        return None
    return SampleFn(layout.slots_per_step, layout.views)
