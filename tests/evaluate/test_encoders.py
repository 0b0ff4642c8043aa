"""The encoder of a file of weights: what the file says, what a recipe says, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from system.errors import RecipeError, WeightsError
from system.evaluate.encoders import Frozen, load, load_encoder, run_source, weights_source
from system.models.encoder import Encoder
from system.models.sizes import Shape, shapes
from system.models.weight_files import our_metadata, write_weights
from system.recipe import Recipe
from tests.small import tiny_recipe


def from_weights(uri: str, recipe: Recipe | None = None, *overrides: str) -> Frozen:
    return load(weights_source(uri, recipe, print, overrides))


def weights_file(folder: Path, encoder: Encoder, heads: int | None, *, norm: bool = True) -> str:
    uri = str(folder / "some.safetensors")
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items() if norm or name[:5] != "norm."}
    write_weights(uri, tensors, our_metadata((heads, None)))
    return uri


def tiny_encoder(tmp_path: Path) -> Encoder:
    recipe = tiny_recipe(tmp_path)
    torch.manual_seed(3)
    return Encoder(recipe.grid, shapes(recipe.model)[0])


def test_a_recipe_says_grid_and_heads_of_weights(tmp_path: Path) -> None:
    model, recipe = tiny_encoder(tmp_path), tiny_recipe(tmp_path)
    found = from_weights(weights_file(tmp_path, model, None), recipe)
    assert found.grid == recipe.grid
    assert found.said["encoder"] == {"width": 48, "depth": 2, "heads": 3}
    assert all(torch.equal(value, found.encoder.state_dict()[name]) for name, value in model.state_dict().items())
    assert not any(value.requires_grad for value in found.encoder.parameters())


def test_without_a_recipe_the_grid_is_that_of_released_weights(tmp_path: Path) -> None:
    found = from_weights(weights_file(tmp_path, tiny_encoder(tmp_path), 3))
    assert (found.grid.num_frames, found.grid.height, found.grid.tokens) == (16, 224, 1568)
    assert found.said["trained_on"] == {"frames": 16, "size_px": 224, "tubelet": 2, "patch_px": 16}


def test_without_a_recipe_a_head_makes_weights_those_of_a_classifier(tmp_path: Path) -> None:
    uri = str(tmp_path / "tuned.safetensors")
    tensors = {f"encoder.{name}": value for name, value in tiny_encoder(tmp_path).state_dict().items()}
    write_weights(
        uri, {**tensors, "head.weight": torch.zeros(5, 48), "head.bias": torch.zeros(5)}, our_metadata((3, None))
    )
    recipe = weights_source(uri, None, print).recipe
    assert (recipe.method.name, recipe.grid.num_frames, recipe.grid.height) == ("classify", 16, 224)


def test_weights_without_their_last_norm_say_so(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path)
    assert from_weights(weights_file(tmp_path, model, 3)).has_norm
    assert not from_weights(weights_file(tmp_path, model, 3, norm=False)).has_norm


def test_the_same_weights_have_the_same_digest(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path)
    first = from_weights(weights_file(tmp_path, model, 3)).said["sha256"]
    assert first == from_weights(weights_file(tmp_path, model, 3), tiny_recipe(tmp_path)).said["sha256"]
    with torch.no_grad():
        model.norm.get_parameter("bias")[0] += 1
    assert first != from_weights(weights_file(tmp_path, model, 3)).said["sha256"]


def test_a_recipe_of_other_sizes_or_heads_is_refused(tmp_path: Path) -> None:
    uri = weights_file(tmp_path, tiny_encoder(tmp_path), 3)
    with pytest.raises(WeightsError, match=r"does not fit the model\. File: encoder 48 wide x 2 blocks"):
        from_weights(uri, tiny_recipe(tmp_path, "model.depth=3"))
    with pytest.raises(WeightsError, match=r"has 3 heads where the recipe's model\.heads is 2"):
        from_weights(uri, tiny_recipe(tmp_path, "model.heads=2"))


def test_patches_that_released_clips_do_not_have_want_a_recipe(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "data.num_frames=6", "model.tubelet_frames=3")
    with pytest.raises(WeightsError, match="say their recipe"):
        from_weights(weights_file(tmp_path, Encoder(recipe.grid, Shape(48, 2, 3)), 3))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no run's folder"):
        run_source(str(tmp_path), None, print)


def test_overrides_of_released_weights_leave_their_clips_as_they_are(tmp_path: Path) -> None:
    uri = weights_file(tmp_path, tiny_encoder(tmp_path), 3)
    source = weights_source(uri, None, print, ["data.stride=2"])
    assert (source.recipe.data.stride, source.recipe.grid.tokens) == (2, 1568)
    with pytest.raises(RecipeError, match=r"are for clips of 16 frames of 224 px .* got 8 frames of 224 px"):
        weights_source(uri, None, print, ["data.num_frames=8"])


def test_features_are_not_taken_of_an_encoder_without_its_last_norm(tmp_path: Path) -> None:
    uri = weights_file(tmp_path, tiny_encoder(tmp_path), 3, norm=False)
    with pytest.raises(WeightsError, match=r"has no encoder\.norm"):
        load_encoder(tiny_recipe(tmp_path), uri)
