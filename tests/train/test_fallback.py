"""Slots whose stream has no motion vectors are counted, over all ranks and restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.running import _closing
from system.data.dataset import run_uri
from system.data.synthetic import moving_video
from system.recipe import Recipe
from system.train.checkpoint import latest
from system.train.progress import Progress, progress_from
from tests.motion.codec_scenes import rewritten
from tests.small import tiny_recipe
from tests.train.ranks import train_here, train_on


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """8 videos, 3 of them without vectors; a step sees each of them once."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(8):
        data = moving_video(0, number, size=(48, 48), num_frames=16)[1]
        if number < 3:
            data = rewritten(data, "libvpx-vp9", {"crf": "30", "b": "0"}, "matroska")
        (videos / f"{number}.mkv").write_bytes(data)
    return tiny_recipe(
        tmp_path,
        f"data.uri={videos}",
        "method.name=mgmae",
        "motion.source=codec",
        "data.stride=2",
        "train.global_batch=8",
        "train.steps=2",
        "checkpoint.every_steps=1",
    )


def kept(recipe: Recipe) -> Progress:
    found = latest(run_uri(recipe))
    assert found is not None
    return progress_from(found.state["progress"])


def stopped_at(recipe: Recipe, step: int) -> Recipe:
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"stop_at_step": step})})


def test_slots_that_fell_back_are_counted_through_a_restart(recipe: Recipe) -> None:
    assert train_here(stopped_at(recipe, 1)).fallback == 3
    assert train_here(recipe).fallback == 6
    assert kept(recipe).fallback == 6


@pytest.mark.slow
def test_slots_that_fell_back_are_counted_over_ranks(recipe: Recipe) -> None:
    train_on(2, recipe)
    assert kept(recipe).fallback == 6


def test_a_run_says_how_many_fell_back_and_to_what() -> None:
    summary: dict[str, Any] = {
        "status": "complete",
        "step": 2,
        "steps": 2,
        "clips": 16,
        "videos": 8,
        "job_s": 1.0,
        "told_to_stop": False,
        "loss_first": 1.0,
        "loss_last": 1.0,
        "clips_per_s": 1.0,
        "data_wait": 0.0,
        "num_quarantined": 0,
        "num_rejected_at_indexing": 0,
        "outputs": {},
        "motion_fallback": "dis",
        "cost": None,
    }
    said = _closing({**summary, "slots_fallback": 6})
    assert any("the streams of 6 slots have too few motion vectors: their motion is from dis" in line for line in said)
    assert not any("vectors" in line for line in _closing({**summary, "slots_fallback": 0}))
