"""The recipes that the stages `pipeline`, `memory` and `loop` run: small runs over the videos that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from system.benchmark.machine import cores
from system.benchmark.stages import Asked
from system.data.assemble import StreamSpec, layout_for
from system.data.dataset import ensure_index
from system.recipe import Recipe, recipe_from

# Generated videos, where no folder is given: of the size that Kinetics-400 is usually stored in; and little ones.
SYNTHETIC = "synthetic://moving?videos=32&frames=96&height=256&width=340"
LITTLE = "synthetic://moving?videos=16&frames=16&height=64&width=64"
# Clips of a block: what a recipe of ViT-B with 2,048 clips a step on 8 ranks comes to.
BLOCK_CLIPS = 32
# Longer than any measurement takes blocks from: a stream must not end while it is measured.
STEPS = 1_000_000


def small_recipe(asked: Asked, **sections: Mapping[str, Any]) -> Recipe:
    """Return a recipe of VideoMAE over the videos that are asked for, one rank, as many decode actors as cores.

    Args:
        asked: where the videos are and what may be written where.
        sections: fields that differ.
    """
    tree: dict[str, dict[str, Any]] = {
        "run": {"name": "benchmark", "storage": asked.scratch},
        "data": {
            "uri": _videos(asked),
            "clips_per_block": BLOCK_CLIPS,
            "blocks_per_stream": 2 * STEPS,
        },
        "model": {"size": "tiny"},
        "method": {"name": "videomae"},
        "train": {"global_batch": BLOCK_CLIPS, "steps": STEPS, "warmup_steps": 0},
        "engine": {"name": "torch", "precision": "fp32"},
        "resources": {"use_gpu": False, "decode_actors": cores()},
    }
    for name, fields in sections.items():
        tree.setdefault(name, {}).update(fields)
    return recipe_from(tree, "the benchmark's recipe")


def _videos(asked: Asked) -> str:
    if asked.videos != "synthetic":
        return asked.videos
    return LITTLE if asked.short else SYNTHETIC


def stream_of(recipe: Recipe, ranks: int = 1) -> StreamSpec:
    """Return the stream of a recipe; the index is made where there is none."""
    return StreamSpec(recipe, ensure_index(recipe), layout_for(recipe, ranks), recipe.train.steps or 1)
