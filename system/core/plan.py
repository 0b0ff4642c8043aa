"""Which video is read at which step: arithmetic from (number of videos, seed, window) alone.

A *slot* is one video of one epoch, numbered without end: slot q is position q mod V of epoch q div V, for V videos.
Step k takes the slots [k * slots_per_step, (k + 1) * slots_per_step), whatever the number of ranks. A *block* is an
equal part of one rank's share of a step; blocks are numbered without end too; rank r of n takes r, r + n, ...

The shuffle permutes the index's row groups, joins them to windows and permutes the videos inside a window: reads stay
inside a few row groups of the index, and no list of all videos is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from system.core.seeds import Purpose, generator

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """The endless sequence of videos of a run.

    Args:
        num_videos: rows of the index.
        seed: the run's seed.
        group_videos: rows of one row group of the index (the last group may hold fewer).
        window_videos: videos that are shuffled among each other; rounded up to whole groups.
    """

    num_videos: int
    seed: int
    group_videos: int
    window_videos: int

    def __post_init__(self) -> None:
        if self.num_videos < 1:
            raise ValueError(f"a plan needs at least one video, got {self.num_videos}")

    @property
    def num_groups(self) -> int:
        """Row groups of the index."""
        return -(-self.num_videos // self.group_videos)

    @property
    def groups_per_window(self) -> int:
        """Row groups that make up one window."""
        return -(-self.window_videos // self.group_videos)

    def position(self, slot: int) -> tuple[int, int]:
        """Return (epoch, position inside it) of an endless slot number."""
        return divmod(slot, self.num_videos)

    def videos(self, start: int, stop: int) -> Ids:
        """Return the video of each slot in [start, stop): (stop - start,) int64 rows of the index."""
        out = np.empty(max(0, stop - start), np.int64)
        slot = start
        while slot < stop:
            epoch, position = self.position(slot)
            starts = _window_starts(self, epoch)
            window = int(np.searchsorted(starts, position, side="right")) - 1
            take = min(stop - slot, int(starts[window + 1]) - position)
            first = position - int(starts[window])
            out[slot - start : slot - start + take] = _window_videos(self, epoch, window)[first : first + take]
            slot += take
        return out

    def spare(self, slot: int, attempt: int) -> int:
        """Return the video that stands in for a slot's own at the given attempt, from 1.

        A function of (seed, epoch, position, attempt) alone, so it does not depend on ranks or micro-batches.
        """
        epoch, position = self.position(slot)
        return int(generator(self.seed, Purpose.SPARE, epoch, position, attempt).integers(self.num_videos))


@lru_cache(maxsize=4)
def _group_order(plan: EpochPlan, epoch: int) -> Ids:
    return generator(plan.seed, Purpose.GROUPS, epoch).permutation(plan.num_groups)


@lru_cache(maxsize=4)
def _window_starts(plan: EpochPlan, epoch: int) -> Ids:
    """Return the first position of every window of an epoch, and the number of videos at the end."""
    sizes = np.full(plan.num_groups, plan.group_videos, np.int64)
    ragged = plan.num_videos - (plan.num_groups - 1) * plan.group_videos
    sizes[_group_order(plan, epoch) == plan.num_groups - 1] = ragged
    edges = np.concatenate([[0], np.cumsum(sizes)])
    return np.append(edges[: -1 : plan.groups_per_window], plan.num_videos)


@lru_cache(maxsize=4)
def _window_videos(plan: EpochPlan, epoch: int, window: int) -> Ids:
    per_window = plan.groups_per_window
    groups = _group_order(plan, epoch)[window * per_window : (window + 1) * per_window]
    videos = (groups[:, None] * plan.group_videos + np.arange(plan.group_videos)).ravel()
    videos = videos[videos < plan.num_videos]
    return videos[generator(plan.seed, Purpose.WINDOW, epoch, window).permutation(len(videos))]


@dataclass(frozen=True, slots=True)
class BlockSlots:
    """What one block holds: slots [start, stop) of step `step`, then `padding` slots of weight zero."""

    block: int
    step: int
    start: int
    stop: int
    padding: int

    @property
    def num_slots(self) -> int:
        """Slots of the block, padding included: the same for every block of a layout."""
        return self.stop - self.start + self.padding


@dataclass(frozen=True, slots=True)
class StepLayout:
    """How one step is cut into equal blocks for the ranks there are.

    Args:
        slots_per_step: real slots of a step (the global batch over the views).
        views: clips of one slot.
        num_ranks: ranks that share a step.
        slots_per_block: slots of one block.
        blocks_per_rank: blocks of one rank and step.
    """

    slots_per_step: int
    views: int
    num_ranks: int
    slots_per_block: int
    blocks_per_rank: int

    @property
    def blocks_per_step(self) -> int:
        """Blocks of one step over all ranks."""
        return self.num_ranks * self.blocks_per_rank

    @property
    def clips_per_block(self) -> int:
        """Clips of one block, padding included."""
        return self.slots_per_block * self.views

    @property
    def padding(self) -> float:
        """Share of the computed slots that is padding, in [0, 1)."""
        return 1 - self.slots_per_step / (self.blocks_per_step * self.slots_per_block)

    def first_block(self, step: int) -> int:
        """Return the number of a step's first block."""
        return step * self.blocks_per_step

    def block(self, number: int) -> BlockSlots:
        """Return the slots of an endless block number."""
        step, part = divmod(number, self.blocks_per_step)
        first, end = step * self.slots_per_step, (step + 1) * self.slots_per_step
        start = min(first + part * self.slots_per_block, end)
        stop = min(start + self.slots_per_block, end)
        return BlockSlots(number, step, start, stop, self.slots_per_block - (stop - start))


@dataclass(frozen=True, slots=True)
class Cell:
    """The ranks that one stream serves: neighbours, of as many cells as there are streams.

    Which blocks a rank gets does not depend on the cells: rank r of n takes r, r + n, ... Of the endless row of blocks
    a cell's stream carries those of its ranks, and counts them on its own: 0, 1, ...

    Args:
        index: of the cell.
        count: of all cells.
        num_ranks: ranks of all cells.
    """

    index: int
    count: int
    num_ranks: int

    @property
    def first(self) -> int:
        """The cell's first rank."""
        return self.index * self.num_ranks // self.count

    @property
    def size(self) -> int:
        """Ranks of the cell; cells differ by one at most."""
        return (self.index + 1) * self.num_ranks // self.count - self.first

    @property
    def largest(self) -> int:
        """Ranks of the largest cell."""
        return -(-self.num_ranks // self.count)

    def number(self, own: int) -> int:
        """Return the endless number of a block that is the cell's own number `own`."""
        turn, place = divmod(own, self.size)
        return turn * self.num_ranks + self.first + place

    def before(self, number: int) -> int:
        """Return how many of the cell's blocks come before an endless number: for one of them, its own number."""
        turn, rank = divmod(number, self.num_ranks)
        return turn * self.size + min(max(rank - self.first, 0), self.size)

    def share(self, amount: int) -> int:
        """Return the cell's part of a number of things that the cells share: at least one, all of them together.

        Of more things no cell gets fewer, so shares of bounds are bounds.
        """
        each, over = divmod(max(0, amount - self.count), self.count)
        return 1 + each + (self.index >= self.count - over)


def cells_of(num_ranks: int, most: int) -> tuple[Cell, ...]:
    """Put ranks into as few cells of at most `most` ranks as there can be, of equal size but for one rank."""
    count = -(-num_ranks // most)
    return tuple(Cell(index, count, num_ranks) for index in range(count))


def step_layout(slots_per_step: int, views: int, num_ranks: int, max_clips: int = 48, unit: int = 1) -> StepLayout:
    """Cut a step into equal blocks of at most `max_clips` clips, with as little padding as that allows.

    A slot's views stay together, and so do `unit` slots, so a block holds at least those.

    Args:
        slots_per_step: real slots of a step, a multiple of `unit`.
        views: clips of one slot.
        num_ranks: ranks that share a step.
        max_clips: of a block.
        unit: neighbouring slots that lie in the same block: 2 where clips are mixed in pairs.
    """
    if slots_per_step % unit:
        raise ValueError(f"a step of {slots_per_step} slots is no multiple of {unit}, which stay together")
    largest = max(1, max_clips // (views * unit))
    share = -(-slots_per_step // (unit * num_ranks))
    fewest = -(-share // largest)
    candidates = [
        StepLayout(slots_per_step, views, num_ranks, unit * -(-share // count), count)
        for count in range(fewest, 2 * fewest + 1)
    ]
    return min(candidates, key=lambda layout: (layout.padding, layout.blocks_per_rank))


def fitting_ranks(slots_per_step: int, max_padding: float, around: int, unit: int = 1) -> list[int]:
    """Return the rank counts nearest to `around` that waste at most `max_padding` of a step, for an error's advice.

    Of `unit` slots that stay together none are divided.
    """
    units = slots_per_step // unit
    fits = [
        ranks
        for ranks in range(1, min(units, 4 * around) + 1)
        if 1 - units / (-(-units // ranks) * ranks) <= max_padding
    ]
    return sorted(sorted(fits, key=lambda ranks: abs(ranks - around))[:4])
