"""Pre-training in memory: the columns of a stream, the same clips for every method, copies of the encoder."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.learning_check import RECIPE
from system.data.columns import Batch
from system.data.scene_set import make_scene_set
from system.evaluate.pretraining import pretrain, scene_blocks
from system.evaluate.scene_motion import scene_motion, source_for
from system.evaluate.trial import clip_shape
from system.methods import METHODS
from system.recipe import Recipe, load_recipe

SMALL = (
    "data.num_frames=8",
    "model.width=48",
    "model.heads=3",
    "model.depth=1",
    "train.global_batch=8",
    "train.micro_batch=8",
    "train.steps=4",
    "train.warmup_steps=1",
)


def small_recipe(method: str, storage: Path | str = "unused", *overrides: str) -> Recipe:
    return load_recipe(RECIPE, [*SMALL, f"method.name={method}", f"run.storage={storage}", *overrides])


SCENES = make_scene_set(0, 20, clip_shape(small_recipe("videomae")))


def blocks(recipe: Recipe, count: int) -> list[Batch]:
    flow_of = scene_motion(source_for(recipe.record, "truth"))
    return list(islice(scene_blocks(recipe, SCENES, flow_of), count))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_sees_the_same_clips_at_the_same_steps_and_equally_many_tokens(name: str) -> None:
    mine, other = blocks(small_recipe(name), 4), blocks(small_recipe("videomae"), 4)
    for one, two in zip(mine, other, strict=True):
        assert (one["frames"] == two["frames"]).all()
        assert (one["visible"].sum(1) == two["visible"].sum(1)).all()
    assert not (mine[0]["frames"] == mine[1]["frames"]).all()


def test_another_seed_means_another_order() -> None:
    one, two = (blocks(small_recipe("videomae", "unused", f"run.seed={seed}"), 1)[0] for seed in (0, 1))
    assert not (one["frames"] == two["frames"]).all()
    assert not (one["visible"] == two["visible"]).all()


def test_the_clips_of_an_epoch_are_all_clips() -> None:
    parts = blocks(small_recipe("videomae", "unused", "train.global_batch=20"), 1)
    assert sorted(frame.sum() for frame in parts[0]["frames"].astype(np.int64)) == sorted(
        frame.sum() for frame in SCENES.frames.astype(np.int64)
    )


def test_the_encoder_is_copied_after_a_quarter_a_half_and_all_of_the_steps(tmp_path: Path) -> None:
    done = pretrain(small_recipe("videomae", tmp_path), SCENES, scene_motion("truth"))
    assert sorted(done.encoders) == [1, 2, 4]
    assert len(done.losses) == 4
    weights: list[Any] = [done.encoders[step].state_dict()["norm.weight"] for step in (1, 2, 4)]
    assert not torch.equal(weights[0], weights[2])
    again = pretrain(small_recipe("videomae", tmp_path), SCENES, scene_motion("truth"))
    assert again.losses == done.losses
