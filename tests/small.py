"""Small recipes for tests, and the blocks of their streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from system.core.plan import StepLayout
from system.data.assemble import StreamSpec, layout_for
from system.data.dataset import ensure_index, ensure_labels, run_uri
from system.data.index import Index, IndexWriter
from system.models.tokenizer import Tokenizer, TokenizerConfig, save_tokenizer
from system.recipe import Recipe, load_recipe
from tests.conftest import RECIPES, TINY


def tiny_recipe(storage: Path | str, *overrides: str) -> Recipe:
    """Return the tiny recipe with its runs under `storage`."""
    return load_recipe(RECIPES / "smoke.yaml", [*TINY, f"run.storage={storage}", *overrides])


def labelled_recipe(storage: Path | str, *overrides: str) -> Recipe:
    """Return the tiny recipe as one of fine-tuning, its labels read."""
    tiny = [each for each in TINY if "mask_ratio" not in each]
    return ensure_labels(
        load_recipe(RECIPES / "smoke.yaml", [*tiny, f"run.storage={storage}", "method.name=classify", *overrides])
    )


def fit_first(recipe: Recipe) -> None:
    """Put the tokenizer in place that the recipe's method wants fitted, with random weights: quick, and none the worse
    for tests that do not look at its codes."""
    wanted = recipe.record.to_fit(recipe.method, run_uri(recipe))
    if wanted is not None:
        config = TokenizerConfig(
            kind="small", num_codes=wanted.num_codes, factor=16, width=8, latent_width=8, code_width=8
        )
        torch.manual_seed(0)
        save_tokenizer(Tokenizer(config), wanted.uri)


def index_elsewhere(recipe: Recipe, where: Path, places: Mapping[int, Path]) -> str:
    """Write the index of a recipe's videos anew, with some of them said to be other files; return its URI."""
    rows, writer = Index(ensure_index(recipe)), IndexWriter(str(where), "videos that were moved")
    for row in rows:
        fields = {name: value for name, value in asdict(row).items() if name not in ("video_id", "duration_s")}
        writer.add({**fields, "uri": str(places.get(row.video_id, row.uri))})
    writer.close()
    return writer.uri


def stream_spec(recipe: Recipe, ranks: int, last_step: int | None = None) -> StreamSpec:
    """Return the stream of a recipe for a number of ranks."""
    layout: StepLayout = layout_for(recipe, ranks)
    return StreamSpec(recipe, ensure_index(recipe), layout, last_step or recipe.train.steps or 1)
