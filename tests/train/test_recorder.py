"""What a step's record covers of labelled clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from system.core.identity import with_content
from system.data.assemble import local_blocks
from system.data.columns import LABELS, Batch
from system.train.ledger import IDENTITY, MASKS, PIXELS
from system.train.recorder import block_sums, mask_checksums
from tests.small import labelled_recipe, stream_spec


@pytest.fixture(scope="module")
def block(generated: Path) -> Batch:
    recipe = labelled_recipe(generated, "run.name=recorded")
    return next(iter(local_blocks(stream_spec(recipe, 1, last_step=1), 0, 0)))


@pytest.mark.parametrize("name", [*LABELS, "draws"])
def test_a_changed_label_share_or_draw_changes_the_record_and_nothing_else(block: Batch, name: str) -> None:
    changed = {**block, name: block[name].copy()}
    changed[name].reshape(len(changed[name]), -1)[3, 0] += 1
    before, after = block_sums(block), block_sums(changed)
    assert after[MASKS] != before[MASKS]
    assert [after[place] for place in (IDENTITY, PIXELS)] == [before[place] for place in (IDENTITY, PIXELS)]


def test_labels_that_two_clips_exchange_are_noticed(block: Batch) -> None:
    rows = np.ones(len(block["slot"]), np.bool_)
    one, other = np.flatnonzero(block["label"] != block["label"][0])[0], 0
    swapped = np.arange(len(rows))
    swapped[[one, other]] = swapped[[other, one]]
    exchanged = {**block, **{name: block[name][swapped] for name in LABELS}}
    who = np.arange(len(rows)).astype(np.uint64)
    sums = [with_content(who, mask_checksums(each, rows)).sum() for each in (block, exchanged)]
    assert sums[0] != sums[1]


def test_a_block_that_is_all_padding_counts_nothing(block: Batch) -> None:
    padding = {**block, "weight": np.zeros_like(block["weight"])}
    assert block_sums(padding) == [0, 0, 0, 0]
