"""What a step adds up, on one rank and then over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from system.core.codes import perplexity
from system.data.columns import Batch
from system.data.notes import Note, unpack_notes
from system.train.progress import StepCounts

# What the driver wants of the trainers at the end of a step; "" for nothing.
Wanted = Literal["", "save", "stop"]


@dataclass(slots=True)
class StepSums:
    """What one rank adds up during a step."""

    device: torch.device
    loss: Tensor = field(init=False)
    clips: Tensor = field(init=False)
    parts: dict[str, Tensor] = field(default_factory=dict)
    histograms: dict[str, Tensor] = field(default_factory=dict)
    substituted: int = 0
    skipped: int = 0
    fallback: int = 0
    notes: list[Note] = field(default_factory=list)
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        self.loss = torch.zeros((), device=self.device)
        self.clips = torch.zeros((), device=self.device)

    def count(self, block: Batch, views: int) -> None:
        """Count a block's slots and take its notes."""
        real = block["slot"][::views] >= 0
        self.skipped += int((real & (block["weight"][::views] == 0)).sum())
        self.substituted += int((real & (block["weight"][::views] > 0) & (block["attempt"][::views] > 0)).sum())
        if "fallback" in block:
            self.fallback += int((real & block["fallback"][::views]).sum())
        for text in block["notes"][::views]:
            self.notes += unpack_notes(text)

    def judged(self, losses: Mapping[str, Tensor], histograms: Mapping[str, Tensor], weight: Tensor) -> Tensor:
        """Take a micro-batch's losses and return their sum per clip: (B,)."""
        per_clip = sum(losses.values(), torch.zeros_like(weight))
        self.loss += (per_clip.detach() * weight).sum()
        self.clips += weight.sum()
        for name, values in losses.items():
            before = self.parts.get(name, torch.zeros((), device=self.device))
            self.parts[name] = before + (values.detach() * weight).sum()
        for name, counts in histograms.items():
            self.histograms[name] = self.histograms[name] + counts if name in self.histograms else counts
        return per_clip


@dataclass(frozen=True, slots=True)
class StepTotals:
    """A step's sums over all ranks; the same on each of them.

    Attributes:
        values: for metrics.jsonl: the mean loss, its parts, counts, perplexities.
        counts: of slots.
        notes: of all ranks, in the order of their slots.
        written: ranks that have written their part of the checkpoint under way.
        wanted: what the driver wants.
        wait_s: that a rank has waited for its blocks, the mean over all: one may wait for a stream that others do not.
    """

    values: dict[str, float]
    counts: StepCounts
    notes: list[Note]
    written: int
    wanted: Wanted
    wait_s: float


def over_ranks(sums: StepSums, slots: int, *, written: bool, wanted: Wanted) -> StepTotals:
    """Add up a step's sums over all ranks; notes are exchanged only where there are any. A collective.

    Args:
        sums: of this rank.
        slots: of the step.
        written: whether this rank has written its part of the checkpoint under way.
        wanted: what the driver has told this rank that it wants; one rank may know it before the others.
    """
    names = sorted(sums.parts)
    counts = [sums.fallback, sums.substituted, sums.skipped, len(sums.notes), written, wanted == "save"]
    last = [float(wanted == "stop"), sums.wait_s, 1.0]
    tail = torch.tensor([*map(float, counts), *last], dtype=torch.float64, device=sums.device)
    flat = torch.cat([torch.stack([sums.loss, sums.clips, *(sums.parts[name] for name in names)]).double(), tail])
    if dist.is_initialized():
        dist.all_reduce(flat)
    loss, clips, *rest = flat.tolist()
    *parts, fallback, substituted, skipped, num_notes, all_written, save, stop, wait_s, ranks = rest
    mean = 1 / clips if clips else float("nan")
    values = {"loss": loss * mean, "fallback": fallback, "substituted": substituted, "skipped": skipped}
    if len(names) > 1:
        values |= {f"loss/{name}": value * mean for name, value in zip(names, parts, strict=True)}
    for name, histogram in sorted(sums.histograms.items()):
        if dist.is_initialized():
            dist.all_reduce(histogram)
        if histogram.sum() > 0:
            values[f"{name}/perplexity"] = perplexity(histogram)
    return StepTotals(
        values,
        StepCounts(slots, int(substituted), int(skipped), int(fallback)),
        _all_notes(sums.notes) if num_notes else [],
        int(all_written),
        "stop" if stop else "save" if save else "",
        wait_s / ranks,
    )


def _all_notes(notes: list[Note]) -> list[Note]:
    if dist.is_initialized():
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, notes)
        notes = [note for part in gathered for note in part]
    return sorted(notes, key=lambda note: (note.slot, note.attempt))
