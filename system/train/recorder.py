"""What one rank trained on since the last checkpoint, as sums that add up over ranks: the loop's side of the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from system.core.identity import Words, checksum, clip_identities, sampled_bits, total, with_content
from system.data.columns import LABELS, Batch
from system.data.notes import Note
from system.train.ledger import Records


@dataclass(frozen=True)
class Span:
    """What the ranks together did between two checkpoints; the values of a ledger's segment.

    Attributes:
        first_step: of it.
        records: (steps, columns) uint64, summed over ranks.
        passed_over: videos that did not stand in their slot.
        not_trained: step -> why its gradient was not used.
    """

    first_step: int
    records: Records
    passed_over: tuple[Note, ...] = ()
    not_trained: dict[int, str] = field(default_factory=dict)


def mask_checksums(block: Batch, rows: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Return the checksum of each chosen clip's masks, and of its labels and draws where it has some: (R,) uint32."""
    masks = [np.packbits(block[name][rows], axis=1) for name in ("visible", "decoded") if name in block]
    told = [block[name].reshape(len(rows), -1)[rows] for name in (*LABELS, "draws") if name in block]
    return np.array([checksum(*parts) for parts in zip(*masks, *told, strict=True)], np.uint32)


def block_sums(block: Batch) -> list[int]:
    """Return how many clips of a block enter the model, and the sums over them: identity, pixels, masks."""
    rows = block["weight"] > 0
    who: Words = clip_identities(*(block[name][rows] for name in ("slot", "video_id", "view", "start")))
    pixels, masks = with_content(who, block["pixels"][rows]), with_content(who, mask_checksums(block, rows))
    return [int(rows.sum()), total(who), total(pixels), total(masks)]


class SampleFn:
    """Gives the words of a step's sample of mask bits that lie in one block.

    Args:
        slots: of one step.
        views: clips of one slot.
    """

    def __init__(self, slots: int, views: int) -> None:
        self._slots, self._views = slots, views

    def __call__(self, step: int, block: Batch) -> list[int]:
        """Return the block's words."""
        rows = block["weight"] > 0
        clips = (block["slot"][rows] - step * self._slots) * self._views + block["view"][rows]
        words = sampled_bits(step, self._slots * self._views, clips, block["visible"][rows])
        return [int(word) for word in words]


class Recorder:
    """Adds up one rank's blocks, step by step.

    Args:
        first_step: the next step.
        sample: (step, block) -> words of the step's sample of mask bits; None where masks do not come from a network.
        words: how many those are.
    """

    def __init__(self, first_step: int, sample: SampleFn | None = None, words: int = 0) -> None:
        self._first, self._sample, self._columns = first_step, sample, 4 + (words if sample else 0)
        self._rows: list[list[int]] = []
        self._notes: list[Note] = []
        self._not_trained: dict[int, str] = {}
        self._open = [0] * self._columns

    def take(self, step: int, block: Batch) -> None:
        """Count a block of the step that is under way."""
        values = block_sums(block)
        if self._sample is not None:
            values += self._sample(step, block)
        self._open = [(before + value) % 2**64 for before, value in zip(self._open, values, strict=True)]

    def end_step(self, notes: Iterable[Note], not_trained: str | None = None) -> None:
        """End the step that is under way.

        Args:
            notes: of all ranks.
            not_trained: why its gradient was not used, if it was not.
        """
        if not_trained is not None:
            self._not_trained[self._first + len(self._rows)] = not_trained
        self._rows.append(self._open)
        self._notes += notes
        self._open = [0] * self._columns

    def taken(self, device: torch.device) -> Span:
        """Return what all ranks did since the last call, and begin anew. A collective."""
        rows = np.array(self._rows, np.uint64).reshape(-1, self._columns)
        if dist.is_initialized():
            # int64 wraps as uint64 does: sums modulo 2^64, in any order.
            sums = torch.from_numpy(rows.view(np.int64).copy()).to(device)
            dist.all_reduce(sums)
            rows = sums.cpu().numpy().view(np.uint64)
        span = Span(self._first, rows, tuple(self._notes), dict(self._not_trained))
        self._first += len(self._rows)
        self._rows, self._notes, self._not_trained = [], [], {}
        return span
