from __future__ import annotations

from pathlib import Path

import pytest

from system.data.dataset import ensure_index
from system.data.frames import clip_frames
from system.errors import DataError, RecipeError, ResumeError
from system.methods.base import ToFit
from system.models.fit_tokenizer import FitOptions, fit_tokenizer
from system.models.tokenizer import load_tokenizer
from system.recipe import load_recipe
from system.train.own_tokenizer import ensure_tokenizer, fit_from_videos, options_for
from tests.conftest import RECIPES
from tests.small import tiny_recipe

MAM2 = ["method.name=mam2", "method.mask_ratio=0.5"]


def test_a_runs_tokenizer_is_fitted_once_with_the_codes_of_its_method(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("system.train.own_tokenizer.QUICK_STEPS", 4)
    recipe = tiny_recipe(generated, *MAM2, "method.codes=48")
    uri, said = str(tmp_path / "tokenizer.safetensors"), list[str]()
    ensure_tokenizer(recipe, ensure_index(recipe), ToFit(uri, 48), said.append)
    tokenizer = load_tokenizer(uri)
    assert (tokenizer.num_codes, tokenizer.factor) == (48, 16)
    assert "48 codes of 16 px" in said[0]
    assert "perplexity" in said[1]
    before = (tmp_path / "tokenizer.safetensors").read_bytes()
    ensure_tokenizer(recipe, ensure_index(recipe), ToFit(uri, 48), pytest.fail, resumed=True)
    assert (tmp_path / "tokenizer.safetensors").read_bytes() == before


def test_a_resumed_run_without_its_tokenizer_is_refused(generated: Path, tmp_path: Path) -> None:
    recipe, wanted = tiny_recipe(generated, *MAM2), ToFit(str(tmp_path / "tokenizer.safetensors"), 48)
    with pytest.raises(ResumeError, match=r"tokenizer.safetensors is gone, the tokenizer whose codes"):
        ensure_tokenizer(recipe, ensure_index(recipe), wanted, pytest.fail, resumed=True)
    assert not (tmp_path / "tokenizer.safetensors").exists()


def test_the_number_of_codes_that_cannot_be_fitted_is_refused(generated: Path) -> None:
    with pytest.raises(RecipeError, match=r"method.codes=16384: a book of 2 to 8192 codes"):
        options_for(tiny_recipe(generated, *MAM2), 16384)


def test_videos_that_give_no_two_frames_are_refused(generated: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(generated)
    index_uri = ensure_index(recipe)
    with pytest.raises(DataError, match="needs two images of at least 16 px"):
        fit_from_videos(recipe, index_uri, str(tmp_path / "t.safetensors"), lambda _line: None, num_images=0)
    assert not (tmp_path / "t.safetensors").exists()


@pytest.mark.slow
def test_at_the_smoke_recipes_size_codes_do_not_collapse_and_tell_frames_apart(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "smoke.yaml", [f"run.storage={tmp_path}"])
    frames = clip_frames(recipe, ensure_index(recipe), 2048)
    done = fit_tokenizer(frames, FitOptions(steps=200), recipe.run.seed)
    assert done.fitted.perplexity > 150  # of 512
    assert done.held_out.perplexity > 30  # eight videos
    assert done.fitted.error < 0.4 * done.fitted.mean_colour_error
    assert done.held_out.error < 0.6 * done.held_out.mean_colour_error
