"""One trial of the learning check: pre-train with one method and one seed, evaluate on the way, measure the masks.

A trial is a function of its arguments, in one process with one thread; the job runs several side by side.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from system.core.views import Views, merged
from system.data.columns import objects
from system.data.scene_set import LABELS, ClipShape, SceneSet, load_scene_set, make_scene_set, save_scene_set
from system.evaluate.features import Pool
from system.evaluate.frozen import Extraction, Featurizer
from system.evaluate.leakage import leakage, slot_pairs
from system.evaluate.pretraining import fine_tune, fine_tuning_of, flow_of_all, mask_columns, pretrain
from system.evaluate.probes import LabelledViews, linear_probe
from system.evaluate.scene_motion import scene_motion, source_for
from system.evaluate.tally import Tally
from system.methods import METHODS
from system.recipe import Recipe
from system.train.judging import build_model

# Seeds of the sets: no scene is in two of them, and every trial has the same ones.
SET_SEEDS = {"unlabelled": 101, "labelled": 102, "test": 103, "masks": 104}
# Clips of one forward without gradients.
FORWARD_CLIPS = 64
# Steps whose losses are averaged at the start and at the end.
FIRST_STEPS, LAST_STEPS = 5, 20
# The learning rate of the rule is for so many clips of a step.
RULE_CLIPS = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """How much of everything; the defaults are those of the whole check.

    Attributes:
        unlabelled: clips of pre-training.
        labelled: clips that probes are trained on.
        fine_tuned: how many of them, the first ones, fine-tuning is given. Few on purpose: with many labels every start
            learns the task, and what came before matters little.
        test: clips that they are judged by.
        masks: clips whose masks are looked at.
        pool: of the probe's features.
        motion: where the masks' motion comes from, one of `SOURCES`.
        rates: highest learning rates that fine-tuning is tried with from every start, after all of pre-training.
        longer: how many times as long it goes on besides, from every start: do random weights only want more steps?
    """

    unlabelled: int = 4096
    labelled: int = 1000
    fine_tuned: int = 420
    test: int = 1000
    masks: int = 200
    pool: Pool = "slots"
    motion: str = "dis"
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    longer: int = 3


def clip_shape(recipe: Recipe) -> ClipShape:
    """Return the shape of the check's clips, with the extra frames that any method wants at its defaults."""
    data = recipe.data
    offsets = {
        offset
        for method in METHODS.values()
        for offset in method.extra_frames(
            method.options.model_validate({"name": method.name}), data.num_frames, data.stride
        )
    }
    return ClipShape(data.num_frames, data.stride, data.size, tuple(sorted(offsets | set(recipe.extra_frames))))


def make_sets(recipe: Recipe, settings: Settings, folder: Path) -> None:
    """Render all sets and write them below a folder."""
    shape = clip_shape(recipe)
    for name, seed in SET_SEEDS.items():
        save_scene_set(make_scene_set(seed, getattr(settings, name), shape), folder / name)


def load_sets(folder: Path) -> dict[str, SceneSet]:
    """Map the sets into memory."""
    return {name: load_scene_set(folder / name) for name in SET_SEEDS}


def view_numbers(network: nn.Module, work: Extraction, scenes: SceneSet) -> LabelledViews:
    """Return what a network says of clips, each the one view of a video."""
    count = len(scenes)
    found = Featurizer(work, network, "cpu")(
        {
            "video_id": np.arange(count),
            "error": objects([""] * count),
            "seen": np.ones((count, 1), bool),
            "frames": scenes.frames[:, None],
        }
    )
    return _views_of(found["features"], scenes)


def _views_of(features: NDArray[np.float32], scenes: SceneSet) -> LabelledViews:
    return LabelledViews(features, np.ones(features.shape[:2], bool), np.asarray(scenes.labels))


def evaluate(
    encoder: nn.Module, recipe: Recipe, tuned: Recipe, sets: dict[str, SceneSet], settings: Settings
) -> dict[str, float]:
    """Judge an encoder by the motion labels: `probe` and `fine_tuned`, shares of the test clips put right.

    Args:
        encoder: that is judged; it is not changed.
        recipe: of its pre-training.
        tuned: of fine-tuning.
        sets: `labelled` and `test`.
        settings: how much of everything.
    """
    seed = recipe.run.seed
    features = Extraction(recipe, "", Views(), settings.pool, batch=FORWARD_CLIPS)
    train, judged = (view_numbers(encoder, features, scenes) for scenes in (sets["labelled"], sets["test"]))
    accuracy, losses = fine_tuned(encoder, recipe, tuned, sets, settings)
    return {
        "probe": linear_probe(train, judged, len(LABELS), seed=seed).scores.top1,
        "fine_tuned": accuracy,
        "fine_tuning_loss": _mean(losses[-LAST_STEPS:]),
    }


def fine_tuned(
    encoder: nn.Module, recipe: Recipe, tuned: Recipe, sets: dict[str, SceneSet], settings: Settings
) -> tuple[float, list[float]]:
    """Fine-tune from an encoder: the share of the test clips put right, and the loss of each step."""
    tuned = fine_tuning_of(tuned, recipe, len(LABELS))
    model, losses = fine_tune(tuned, encoder, sets["labelled"].part(slice(0, settings.fine_tuned)))
    work = Extraction(tuned, "", Views(), batch=FORWARD_CLIPS, classes=LABELS)
    answers = view_numbers(model, work, sets["test"])
    tally = Tally(len(LABELS)).take(
        answers.labels, merged(answers.features, answers.seen), np.asarray(answers.seen.any(1))
    )
    return tally.top1, losses


def swept(
    encoder: nn.Module, recipe: Recipe, tuned: Recipe, sets: dict[str, SceneSet], settings: Settings, times: int = 1
) -> dict[str, float]:
    """Fine-tune from an encoder at each learning rate, `times` as long: shares of the test clips put right."""
    out = {}
    for rate in settings.rates:
        changed: dict[str, Any] = {"base_lr": rate * RULE_CLIPS / tuned.train.global_batch}
        for name in ("epochs", "warmup_epochs", "steps"):
            value = getattr(tuned.train, name)
            changed[name] = None if value is None else times * value
        longer = tuned.model_copy(update={"train": tuned.train.model_copy(update=changed)})
        out[f"{rate:g}"] = fine_tuned(encoder, recipe, longer, sets, settings)[0]
    return out


def mask_leakage(recipe: Recipe, scenes: SceneSet, motion: str) -> float:
    """Return the mean leakage of a method's masks over clips, by their true flow."""
    pairs = slot_pairs(recipe.grid)
    flow, sight = scenes.flow(pairs), scenes.in_sight(pairs)
    wanted = flow_of_all(recipe, scenes, scene_motion(motion))
    places = [(0, index) for index in range(len(scenes))]
    made = mask_columns(recipe, places, None if wanted is None else wanted.float())
    return float(leakage(torch.from_numpy(made["visible"]), flow, recipe.grid, sight).mean())


def raw_pixels(sets: dict[str, SceneSet]) -> float:
    """Return the accuracy of a linear probe on the pixels themselves, each 4 x 4 of them averaged."""

    def features(scenes: SceneSet) -> LabelledViews:
        frames = torch.tensor(scenes.frames).float().flatten(0, 1).permute(0, 3, 1, 2) / 255
        return _views_of(torch.nn.functional.avg_pool2d(frames, 4).reshape(len(scenes), 1, -1).numpy(), scenes)

    return linear_probe(features(sets["labelled"]), features(sets["test"]), len(LABELS)).scores.top1


def run_trial(recipe: Recipe, tuned: Recipe, settings: Settings, sets: dict[str, SceneSet]) -> dict[str, Any]:
    """Pre-train, evaluate every copy of the encoder, and measure the masks' leakage.

    Returns:
        Plain values: `points` (clips seen, accuracies), `swept` (accuracies by learning rate), `losses` by name at
        start and end, `leakage`, `pretraining_cpu_s`.
    """
    source = source_for(recipe.record, settings.motion)
    done = pretrain(recipe, sets["unlabelled"], scene_motion(source))
    points = []
    for step, encoder in sorted(done.encoders.items()):
        scores = evaluate(encoder, recipe, tuned, sets, settings)
        points.append({"clips": step * recipe.train.global_batch, **scores})
    names = done.losses[0]
    return {
        "method": recipe.method.name,
        "seed": recipe.run.seed,
        "motion": source if recipe.needs_motion else None,
        "points": points,
        "swept": swept(done.encoders[max(done.encoders)], recipe, tuned, sets, settings),
        "swept_longer": swept(done.encoders[max(done.encoders)], recipe, tuned, sets, settings, settings.longer),
        "losses": {
            name: [
                _mean([row[name] for row in rows]) for rows in (done.losses[:FIRST_STEPS], done.losses[-LAST_STEPS:])
            ]
            for name in names
        },
        "leakage": mask_leakage(recipe, sets["masks"], source),
        "pretraining_cpu_s": done.cpu_s,
    }


def run_untrained(recipe: Recipe, tuned: Recipe, settings: Settings, sets: dict[str, SceneSet]) -> dict[str, Any]:
    """Evaluate the encoder as it is before training: what a probe and fine-tuning get from random weights."""
    began = time.process_time()
    encoder = build_model(recipe, torch.device("cpu")).encoder
    assert isinstance(encoder, nn.Module)
    scores = evaluate(encoder, recipe, tuned, sets, settings)
    return {
        "method": "untrained",
        "seed": recipe.run.seed,
        "points": [{"clips": 0, **scores}],
        "swept": swept(encoder, recipe, tuned, sets, settings),
        "swept_longer": swept(encoder, recipe, tuned, sets, settings, settings.longer),
        "evaluation_cpu_s": time.process_time() - began,
    }


def settings_as_values(settings: Settings) -> dict[str, Any]:
    """Return settings as plain values, for a report."""
    return asdict(settings)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
