"""Small recipes for tests, and the blocks of their streams."""

from __future__ import annotations

from pathlib import Path

from system.core.plan import StepLayout
from system.data.assemble import StreamSpec, layout_for
from system.data.dataset import ensure_index
from system.recipe import Recipe, load_recipe
from tests.conftest import RECIPES, TINY


def tiny_recipe(storage: Path | str, *overrides: str) -> Recipe:
    """Return the tiny recipe with its runs under `storage`."""
    return load_recipe(RECIPES / "smoke.yaml", [*TINY, f"run.storage={storage}", *overrides])


def stream_spec(recipe: Recipe, ranks: int, last_step: int | None = None) -> StreamSpec:
    """Return the stream of a recipe for a number of ranks."""
    layout: StepLayout = layout_for(recipe, ranks)
    return StreamSpec(recipe, ensure_index(recipe), layout, last_step or recipe.train.steps or 1)
