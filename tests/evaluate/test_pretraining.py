"""Pre-training in memory: the columns of a stream, the same clips for every method, copies of the encoder."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.learning_check import FINE_TUNING, RECIPE
from system.core.seeds import Purpose, generator
from system.core.views import Views
from system.data.columns import Batch
from system.data.scene_set import LABELS, SceneSet, make_scene_set
from system.evaluate.frozen import Extraction
from system.evaluate.pretraining import fine_tune, fine_tuning_of, plan_of, pretrain, scene_blocks
from system.evaluate.scene_motion import scene_motion, source_for
from system.evaluate.trial import clip_shape, view_numbers
from system.methods import METHODS
from system.recipe import Recipe, load_recipe
from system.train.judging import build_model

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


def tuning(*overrides: str, seed: int = 0) -> Recipe:
    start = small_recipe("videomae", "unused", f"run.seed={seed}")
    tuned = load_recipe(FINE_TUNING, ["train.global_batch=20", "train.micro_batch=20", *overrides])
    return fine_tuning_of(tuned, start, len(LABELS))


def encoder() -> torch.nn.Module:
    made = build_model(small_recipe("videomae"), torch.device("cpu")).encoder
    assert isinstance(made, torch.nn.Module)
    return made


def bright_or_dark(count: int, seed: int = 0) -> SceneSet:
    """Clips whose label is whether they get brighter or darker over time."""
    draw, scenes = np.random.default_rng(seed), SCENES.part(np.zeros(count, np.int64))
    labels = np.arange(count) % 2
    slope = np.where(labels == 1, 25, -25)[:, None] * np.linspace(-1.5, 1.5, 8)
    frames = draw.integers(90, 166, scenes.frames.shape) + slope[..., None, None, None]
    return replace(scenes, frames=frames.astype(np.uint8), labels=labels)


def test_fine_tuning_through_the_runs_loop_learns_a_change_over_time() -> None:
    recipe = tuning("train.epochs=12", "train.base_lr=2.5e-2")
    model, losses = fine_tune(recipe, encoder(), bright_or_dark(60))
    assert losses[0] > 1.8  # a head that starts near zero says nothing yet: ln 7
    test = bright_or_dark(40, seed=1)
    answers = view_numbers(model, Extraction(recipe, "", Views(), classes=LABELS), test).features[:, 0]
    assert (answers.argmax(1) == test.labels).mean() > 0.95


def test_the_encoder_that_fine_tuning_starts_from_is_not_changed_and_its_norm_is_left_out() -> None:
    given = encoder()
    before = {name: value.clone() for name, value in given.state_dict().items()}
    model, _ = fine_tune(tuning("train.epochs=1"), given, SCENES)
    assert all(torch.equal(before[name], value) for name, value in given.state_dict().items())
    assert not [name for name, _ in model.named_parameters() if name.startswith("encoder.norm")]


def test_the_same_seed_gives_the_same_fine_tuning() -> None:
    runs = [fine_tune(tuning("train.epochs=2", seed=seed), encoder(), SCENES)[1] for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


def test_the_forward_pass_draws_for_clips_in_memory_what_a_run_draws_at_their_places() -> None:
    recipe = tuning("method.drop_path=0.1", "method.head_dropout=0.5")
    (block,) = blocks(recipe, 1)
    plan, streams = plan_of(recipe, len(SCENES)), recipe.run.seed
    wanted = [
        generator(streams, Purpose.FORWARD, *plan.position(int(slot)), 0).random(2 * 1 + 48, np.float32)
        for slot in block["slot"]
    ]
    assert (block["draws"] == np.stack(wanted)).all()
    assert "draws" not in blocks(tuning(), 1)[0]


def test_fine_tuning_of_clips_in_memory_drops_by_these_draws() -> None:
    drops = "method.head_dropout=0.5"
    (_, plain), (_, one), (_, again) = (
        fine_tune(tuning("train.epochs=2", *more), encoder(), SCENES) for more in ((), (drops,), (drops,))
    )
    assert one == again
    assert one != plain


def test_lower_layers_learn_as_much_slower_as_the_recipe_says() -> None:
    given = encoder()
    moved = {}
    for decay in (1.0, 0.1):
        model, _ = fine_tune(tuning("train.epochs=1", f"method.layer_decay={decay}"), given, SCENES)
        learnt, start = dict(model.named_parameters()), dict(given.named_parameters())
        # The one step of Adam moves each number by the learning rate, up to the decay of weights.
        name = "patch_embed.proj.bias"
        moved[decay] = float((learnt[f"encoder.{name}"] - start[name]).detach().abs().mean())
    # An embedding below one block and the head: two layers.
    assert moved[0.1] == pytest.approx(0.1**2 * moved[1.0], rel=0.01)
