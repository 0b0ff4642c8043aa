"""What is written is the whole state, and its figures are shares of a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from system.benchmark.checkpoint import (
    RECIPES,
    TINY,
    Found,
    Kept,
    Rank,
    large_line,
    measure,
    num_bytes,
    save,
    training_lines,
    writing_lines,
)
from system.benchmark.stages import Asked
from system.recipe import load_recipe
from system.train.checkpoint import open_checkpoint
from system.train.fragments import Fragment


@pytest.fixture(scope="module")
def rank() -> Rank:
    return Rank(load_recipe(RECIPES / "smoke.yaml", ["engine.name=torch", *TINY]))


def test_both_ways_write_every_weight_and_both_of_its_moments(rank: Rank, tmp_path: Path) -> None:
    before = {(part.name, part.state): part.values.clone() for part in rank.engine.fragments()}
    rank.step()
    fragments = rank.engine.fragments()
    assert any((part.values != before[part.name, part.state]).any() for part in fragments)
    Kept(rank.shapes, rank.engine.fragments, tmp_path).write()
    ours = [Fragment(part.name, part.state, part.start, torch.zeros_like(part.values)) for part in fragments]
    open_checkpoint(str(tmp_path), 1).fill(ours)
    saved = torch.load(save(fragments, tmp_path))
    assert len(saved) == len(fragments) == 3 * len(rank.shapes)
    for part, read in zip(fragments, ours, strict=True):
        assert torch.equal(read.values, part.values)
        assert torch.equal(saved[f"{part.state}/{part.name}"], part.values)


def test_a_stall_is_a_share_of_a_step() -> None:
    found = Found([2.0, 2.0], [0.02, 0.06], [0.1, 0.3], [0.1, 0.3], [0.5, 0.5], [0.4, 0.4], [0.25, 0.25])
    stall, beside = training_lines(found)
    assert stall.ours == pytest.approx(2)
    assert stall.conventional == pytest.approx(20)
    assert stall.reached() is True
    assert beside.ours == pytest.approx(10)
    assert large_line(found).ratio == pytest.approx(2)
    (written,) = writing_lines("x", found, 100_000_000)
    assert written.ours == pytest.approx(200)
    assert written.ratio == pytest.approx(0.8)
    assert written.share == pytest.approx(0.5)


def test_the_stage_runs_in_a_short_form(tmp_path: Path, rank: Rank) -> None:
    made = measure(Asked("synthetic", str(tmp_path), "cpu", short=True, say=lambda line: None))
    assert [line.name for line in made] == ["stall", "steps beside it", "written, smoke"]
    assert f"{num_bytes(rank.engine.fragments()) / 1e6:.0f} MB in" in made[2].says
    assert made[0].ours > 0
    assert made[2].share is not None
