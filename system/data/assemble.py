"""From a recipe to the stages of its stream. No Ray: an actor calls these where it lives.

A `StreamSpec` is what travels to the actors: plain values, a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from system.core.plan import Cell, EpochPlan, StepLayout, cells_of, fitting_ranks, step_layout
from system.data.clips import ClipMaker, ClipSpec
from system.data.columns import Batch, Column, StageSpec, decode_spec, mask_spec, read_spec
from system.data.index import Index
from system.data.labelling import columns_of_labels, labeller
from system.data.masking import Masker, MaskStage
from system.data.sandbox import Limits
from system.data.stages import DecodeStage, ReadStage
from system.errors import RecipeError
from system.methods.labelled import LabelledOptions
from system.motion.base import CPU_SOURCES, motion_source
from system.recipe import Recipe
from system.section import Counted, fewest, most

# Clips of a block: 48 of 16 x 224 x 224 are 116 MB. A block's cost is per block, not per byte, and it must stay below
# the size at which Ray would cut it.
MAX_BLOCK_CLIPS = 48
MAX_BLOCK_BYTES = 120_000_000
# Blocks that each rank may be ahead of itself.
LOOKAHEAD_PER_RANK = 4
# Blocks for each decode actor: at work, waiting for it, and made while the others wait for one that takes long. With
# fewer than one there are actors that never get a block.
LOOKAHEAD_PER_DECODER = 3


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What a stream is made of.

    Attributes:
        recipe: of the run.
        index_uri: of its index.
        layout: how a step is cut for the ranks there are.
        last_step: the stream ends before this step.
        known_bad: videos in quarantine: id -> (code, reason).
        only: the ranks that it serves, where several streams share them; None: it serves all.
    """

    recipe: Recipe
    index_uri: str
    layout: StepLayout
    last_step: int
    known_bad: dict[int, tuple[str, str]] = field(default_factory=dict)
    only: Cell | None = None

    @property
    def cell(self) -> Cell:
        """The ranks that it serves."""
        return self.only or Cell(0, 1, self.layout.num_ranks)


def clip_bytes(recipe: Recipe) -> int:
    """Return the bytes of one clip's frames, extra ones among them."""
    grid = recipe.grid
    return (grid.num_frames + len(recipe.extra_frames)) * grid.height * grid.width * 3


def layout_for(recipe: Recipe, num_ranks: int) -> StepLayout:
    """Cut the recipe's step for a number of ranks.

    Raises:
        RecipeError: if padding would waste more of a step than the recipe allows.
    """
    views = recipe.data.views
    most_clips = recipe.data.clips_per_block or max(1, min(MAX_BLOCK_CLIPS, MAX_BLOCK_BYTES // clip_bytes(recipe)))
    layout = step_layout(recipe.slots_per_step, views, num_ranks, most_clips, recipe.slots_together)
    limit = recipe.resources.max_padding
    if layout.padding > limit:
        fits = ", ".join(map(str, fitting_ranks(recipe.slots_per_step, limit, num_ranks, recipe.slots_together)))
        raise RecipeError(
            f"resources.num_workers={num_ranks} shares {recipe.slots_per_step} videos of a step so that"
            f" {layout.padding:.0%} of the work is padding, more than resources.max_padding={limit:.0%};"
            f" worker counts that fit: {fits}"
        )
    return layout


def cells_for(recipe: Recipe, num_ranks: int) -> tuple[Cell, ...]:
    """Return the cells of a number of ranks: each has a stream of its own, with actors of its own.

    Where a stage has fewer actors than there would be cells there are as many cells as actors. Those that read hold no
    core: each cell has one.
    """
    resources = recipe.resources
    actors = fewest(resources.decode_actors)
    if not masks_beside_decoding(recipe):
        actors = min(actors, fewest(resources.mask.actors))
    return cells_of(num_ranks, max(resources.ranks_per_stream, -(-num_ranks // actors)))


def share_of(actors: Counted, cell: Cell) -> Counted:
    """Return a cell's part of the actors of a stage."""
    if isinstance(actors, tuple):
        return cell.share(actors[0]), cell.share(actors[1])
    return cell.share(actors)


def stream_blocks(spec: StreamSpec, from_step: int, max_blocks: int) -> range:
    """Return the blocks of a stream, by its cell's own count: whole steps, at least one, at most `max_blocks`.

    The streams of all cells end with the same step.
    """
    layout, cell = spec.layout, spec.cell
    steps = max(1, max_blocks // (cell.largest * layout.blocks_per_rank))
    stop = min(spec.last_step, from_step + steps)
    return range(cell.before(layout.first_block(from_step)), cell.before(layout.first_block(stop)))


def lookahead_of(recipe: Recipe, cell: Cell) -> int:
    """Return how many blocks of a cell may be read ahead of its trainers, at least the fewest that flow.

    A rank gets a block when its next one is there, and `equal=True` deals out a round of blocks when it is whole: two
    rounds must pass the gate before the clock first moves. In exact order a block that takes long holds up those
    behind it; what the other actors make meanwhile has to fit into the look-ahead, or they stand still.
    """
    decoders = cell.share(most(recipe.resources.decode_actors))
    if recipe.data.lookahead:
        own = cell.share(recipe.data.lookahead)
    else:
        own = max(LOOKAHEAD_PER_RANK * cell.size, LOOKAHEAD_PER_DECODER * decoders)
    return max(own, 2 * cell.size + 1)


def cap_of(recipe: Recipe, cell: Cell) -> int:
    """Return how many blocks' worth of the object store a cell's stream may take.

    The gates let `data.lookahead` blocks pass. Ray takes off what the ranks have fetched ahead and reserves half of the
    rest in equal parts for all operators, the source and the one that cuts block numbers among them, which hold next
    to nothing; so the operators that hold blocks get less than half. With a cap that is only as large as what is held,
    decoding is stopped while the trainers wait for it.
    """
    return 3 * lookahead_of(recipe, cell) + 2 * cell.size


def capped_blocks(recipe: Recipe, num_ranks: int) -> int:
    """Return how many blocks' worth of the object store the streams of all cells may take."""
    return sum(cap_of(recipe, cell) for cell in cells_for(recipe, num_ranks))


def lookahead_blocks(recipe: Recipe, num_ranks: int) -> int:
    """Return how many blocks may be read ahead of the trainers by all streams of a number of ranks."""
    return sum(lookahead_of(recipe, cell) for cell in cells_for(recipe, num_ranks))


def lookahead(spec: StreamSpec) -> int:
    """Return how many blocks may be read ahead of a stream's trainers."""
    return lookahead_of(spec.recipe, spec.cell)


def plan_for(recipe: Recipe, index: Index) -> EpochPlan:
    """Return the plan of a run over an index."""
    return EpochPlan(index.num_videos, recipe.run.seed, index.group_videos, recipe.data.shuffle_window)


def clip_maker(recipe: Recipe, index_uri: str) -> ClipMaker:
    """Open the index and return what turns slots into requests."""
    index = Index(index_uri)
    return ClipMaker(plan_for(recipe, index), clip_spec(recipe), index, recipe.run.seed)


def clip_spec(recipe: Recipe) -> ClipSpec:
    """Say what every clip of a run has in common."""
    data = recipe.data
    pairs = recipe.record.pairs(recipe.method, data.num_frames) if from_codec(recipe) else ()
    spec = ClipSpec(recipe.grid, data.stride, data.views, data.decoder, recipe.extra_frames, pairs)
    if isinstance(recipe.method, LabelledOptions):
        crop = recipe.method.crop_area, recipe.method.crop_ratio
        return replace(spec, sampling=recipe.method.sampling, crop=crop)
    return spec


def from_codec(recipe: Recipe) -> bool:
    """Say whether a decoder is asked for motion vectors."""
    return recipe.needs_motion and recipe.flow.source == "codec"


def masks_beside_decoding(recipe: Recipe) -> bool:
    """Say whether masks are made in the decode actor: no motion, or a source that is at home on a CPU."""
    return not recipe.needs_motion or recipe.flow.source in CPU_SOURCES


def flow_device(recipe: Recipe) -> Literal["cpu", "cuda"]:
    """Return what the actors that compute flow are given: a share of a GPU each (`cuda`), or a CPU core each."""
    if masks_beside_decoding(recipe) or not recipe.resources.mask.gpus_per_actor:
        return "cpu"
    return "cuda"


def stage_specs(recipe: Recipe) -> list[StageSpec]:
    """Describe the recipe's chain of stages."""
    beside = masks_beside_decoding(recipe)
    shape = clip_spec(recipe)
    columns = made_columns(recipe)
    last = [] if beside else [mask_spec(shape.grid, len(shape.extra), columns)]
    return [
        read_spec(),
        decode_spec(shape.grid, len(shape.extra), columns if beside else columns_of_labels(recipe)),
        *last,
    ]


def made_columns(recipe: Recipe) -> dict[str, Column]:
    """Describe the columns that clips have besides those of every run: of their labels, then of their masks."""
    return {**columns_of_labels(recipe), **masker(recipe, None).columns(recipe.grid)}


def masker(recipe: Recipe, device: str | None = "cpu") -> Masker:
    """Return what makes the recipe's masks; without a device, what says which columns they are."""
    source = motion_source(recipe.flow, device) if recipe.needs_motion and device else None
    return Masker(recipe.record, recipe.method, source, from_codec=from_codec(recipe))


def limits_of(recipe: Recipe) -> Limits:
    """Return the limits of the recipe's decode children."""
    data = recipe.data
    return Limits(data.deadline_s, data.child_memory_mb, data.child_rss_mb, data.child_videos, data.child_cpu_s)


def read_stage(spec: StreamSpec) -> ReadStage:
    """Make the stage that fetches bytes."""
    return ReadStage(clip_maker(spec.recipe, spec.index_uri), spec.layout, spec.known_bad)


def decode_stage(spec: StreamSpec) -> DecodeStage:
    """Make the stage that decodes, labels, and masks where no GPU is wanted for it."""
    recipe = spec.recipe
    own = masker(recipe) if masks_beside_decoding(recipe) else None
    maker = clip_maker(recipe, spec.index_uri)
    return DecodeStage(maker, limits_of(recipe), own, spec.known_bad, labeller=labeller(recipe))


def begun_decode_stage(spec: StreamSpec) -> DecodeStage:
    """Make the stage that decodes, its child on the way up."""
    stage = decode_stage(spec)
    stage.start()
    return stage


@dataclass(frozen=True, slots=True)
class Makers:
    """What makes a stream's stages where their actors live; stand-ins take their place to weigh the rest.

    Attributes:
        read: the stage from a block's number to bytes.
        decode: the stage from bytes to clips.
    """

    read: Callable[[StreamSpec], Callable[[Batch], Batch]] = read_stage
    decode: Callable[[StreamSpec], Callable[[Batch], Batch]] = begun_decode_stage


def local_blocks(spec: StreamSpec, rank: int, from_step: int) -> Iterator[Batch]:
    """Yield one rank's blocks from a step on, made in this process: the stream without Ray, for tests and pictures."""
    read, decode = read_stage(spec), decode_stage(spec)
    mask = None if masks_beside_decoding(spec.recipe) else mask_stage(spec, "cpu")
    first, stop = spec.layout.first_block(from_step), spec.layout.first_block(spec.last_step)
    try:
        for number in range(first + rank, stop, spec.layout.num_ranks):
            clips = decode(read({"block": np.array([number])}))
            yield mask(clips) if mask is not None else clips
    finally:
        decode.close()


def mask_stage(spec: StreamSpec, device: str) -> MaskStage:
    """Make the stage that turns frames into masks on a device."""
    return MaskStage(clip_maker(spec.recipe, spec.index_uri), masker(spec.recipe, device))
