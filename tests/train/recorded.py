"""Runs whose ledger is written from the stream's blocks, without training: what an audit reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from system import storage
from system.data.assemble import local_blocks
from system.data.columns import Batch
from system.data.dataset import ensure_index, run_uri
from system.data.decoders import build_of_decoders
from system.data.index import Index
from system.data.notes import Note, unpack_notes
from system.recipe import Recipe, dump_recipe
from system.train.ledger import Made, Segment, SegmentRef, write_segment
from system.train.manifest import commit
from system.train.recorder import block_sums
from tests.small import stream_spec

Change = Callable[[int, Batch], Batch]


def as_it_is(_step: int, block: Batch) -> Batch:
    return block


def record_run(
    recipe: Recipe,
    spans: Sequence[tuple[int, int]],
    change: Change = as_it_is,
) -> SegmentRef:
    """Write the ledger of a run and a checkpoint that names it.

    Args:
        recipe: of the run.
        spans: (ranks, stop step) of each segment.
        change: is given every step's block of a rank, and gives the one that the model gets.
    """
    run, index = run_uri(recipe), Index(ensure_index(recipe))
    keep_recipe(recipe)
    last: SegmentRef | None = None
    first = 0
    for generation, (ranks, stop) in enumerate(spans):
        spec = stream_spec(recipe, ranks, last_step=stop)
        records = np.zeros((stop - first, 4), np.uint64)
        notes: list[Note] = []
        for rank in range(ranks):
            for number, block in enumerate(local_blocks(spec, rank, first)):
                step = first + number // spec.layout.blocks_per_rank
                given = change(step, block)
                records[step - first] += np.array(block_sums(given), np.uint64)
                notes += [note for text in given["notes"][:: recipe.data.views] for note in unpack_notes(text)]
        made = Made(ranks, generation, build_of_decoders(augmented=recipe.record.labelled))
        segment = Segment(
            last, first, stop, recipe.slots_per_step, records, tuple(sorted(notes, key=by_slot)), {}, made
        )
        last = write_segment(run, segment)
        first = stop
    assert last is not None
    name_ledger(recipe, first, last, index)
    return last


def keep_recipe(recipe: Recipe) -> None:
    """Write the recipe that a run's folder keeps, as the driver does at each start."""
    storage.write(storage.join(run_uri(recipe), "recipe.yaml"), dump_recipe(recipe).encode())


def by_slot(note: Note) -> tuple[int, int]:
    return note.slot, note.attempt


def name_ledger(recipe: Recipe, step: int, last: SegmentRef | None, index: Index, untrained: int = 0) -> None:
    """Write a checkpoint without weights that names a segment; `untrained` steps did not update any."""
    state = {
        "optimizer_step": step - untrained,
        "progress": {},
        "fingerprint": index.fingerprint,
        "index_uri": index.uri,
        "ledger": last.as_dict() if last else None,
    }
    commit(run_uri(recipe), step, [], {}, state)
