"""The encoder of a run, or of a file of weights: found, loaded and frozen. The one place for every job that uses one.

What a file does not say (the grid of its clips; its heads, if it is a pickle) comes from a recipe, or is taken to be
what released weights have: clips of 16 x 224 x 224, 64 channels a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from system.core.clip import TokenGrid
from system.errors import RecipeError, WeightsError
from system.evaluate.provenance import digest
from system.models.encoder import Encoder
from system.models.fit import LAST_NORM, take
from system.models.heads import HEAD
from system.models.sizes import shapes
from system.models.weight_files import Weights
from system.models.weights import sizes_of
from system.recipe import Recipe, dump_recipe, recipe_from
from system.recipe_tree import lay_overrides
from system.train.checkpoint import chosen
from system.train.judging import build_model
from system.train.kept_recipe import run_recipe
from system.train.manifest import FOLDER
from system.train.warm_start import fit_recipe, heads_of, place_of, read_any

Say = Callable[[str], None]

# Of released weights.
RELEASED_FRAMES, RELEASED_SIZE_PX, HEAD_CHANNELS = 16, 224, 64


@dataclass(frozen=True, slots=True)
class Source:
    """Weights, and the recipe that says what clips they are for.

    Attributes:
        recipe: sizes of clips and model, and how videos are read.
        weights: URI of a checkpoint's folder, or of a file or a folder of weights; of a run, if untrained.
        untrained: weights as they are drawn before step 0 instead, for comparison.
        said: where they come from, in plain values for a results file.
    """

    recipe: Recipe
    weights: str
    untrained: bool = False
    said: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Frozen:
    """An encoder at work.

    Attributes:
        encoder: in host memory, without gradients.
        grid: that it was trained on.
        has_norm: whether the weights have the encoder's last norm; else it does nothing but normalise.
        where: they come from.
    """

    encoder: Encoder
    grid: TokenGrid
    has_norm: bool
    where: Mapping[str, Any]

    @property
    def said(self) -> dict[str, Any]:
        """Which encoder it is, in plain values for a results file."""
        grid, stack = self.grid, self.encoder.blocks
        width = self.encoder.positions.shape[1]
        trained_on = {"frames": grid.num_frames, "size_px": grid.height, "tubelet": grid.tubelet_frames}
        return {
            **self.where,
            "sha256": encoder_digest(self.encoder),
            "encoder": {"width": width, "depth": len(stack), "heads": self.where["heads"]},
            "trained_on": {**trained_on, "patch_px": grid.patch_px},
        }


def run_source(
    run: str, step: int | None, say: Say, overrides: Sequence[str] = (), *, untrained: bool = False
) -> Source:
    """Return what a run has.

    Args:
        run: URI of its folder.
        step: of the checkpoint; None: the newest whole one.
        say: is told of checkpoints that are passed over.
        overrides: laid over the run's recipe; they leave its clips' size and its model as they are.
        untrained: as it was before step 0.

    Raises:
        WeightsError: if there is no such run or checkpoint.
        RecipeError: if an override changes what the weights were trained for.
    """
    recipe = overridden(run_recipe(run), overrides, run, say)
    said = {"run": run, "recipe": dump_recipe(recipe)}
    if untrained:
        return Source(recipe, run, True, {**said, "step": 0, "untrained": True})
    checkpoint = chosen(run, step, say)
    return Source(recipe, checkpoint.uri, False, {**said, "step": checkpoint.step})


def weights_source(uri: str, recipe: Recipe | None, say: Say, overrides: Sequence[str] = ()) -> Source:
    """Return what a file or folder of weights, or a checkpoint, has.

    Args:
        uri: local or s3://; of a run's folder its newest checkpoint is taken.
        recipe: whose clips and model they were trained with; None: of a checkpoint those of its run, else those of
            released weights.
        say: is told what is taken to be so.
        overrides: laid over the recipe that is found; of one that is given they are part.

    Raises:
        WeightsError: if they cannot be read, or are not of released sizes.
        RecipeError: if an override changes what the weights were trained for.
    """
    uri = place_of(uri)  # once: a run that goes on has other weights later
    if recipe is not None:
        return Source(recipe, uri, said={"weights": uri, "recipe": dump_recipe(recipe)})
    run, _, name = uri.rstrip("/").rpartition(f"/{FOLDER}/step_")
    if run and name.isdigit():
        return run_source(run, int(name), say, overrides)
    recipe = overridden(released_recipe(read_any(uri)), overrides, uri, say)
    say(f"positions are taken to be those of clips of {recipe.grid.num_frames} frames of {recipe.grid.height} px")
    return Source(recipe, uri, said={"weights": uri, "recipe": None})


def released_recipe(weights: Weights) -> Recipe:
    """Return a recipe with the sizes of weights, for the clips of released ones.

    Raises:
        WeightsError: if such clips cannot be cut into their patches.
    """
    sizes = sizes_of(weights.tensors, weights.uri)
    heads = weights.heads[0] or max(1, sizes.width // HEAD_CHANNELS)
    if sizes.width % heads or RELEASED_FRAMES % sizes.tubelet_frames or RELEASED_SIZE_PX % sizes.patch_px:
        raise WeightsError(
            f"{weights.uri}: {sizes} are not of clips of 16 x 224 x 224; say their recipe, --recipe FILE"
        )
    tree = {
        "data": {"uri": "none", "num_frames": RELEASED_FRAMES, "size": RELEASED_SIZE_PX},
        "model": {
            "tubelet_frames": sizes.tubelet_frames,
            "patch_px": sizes.patch_px,
            "width": sizes.width,
            "depth": sizes.depth,
            "heads": heads,
        },
        "method": {"name": "classify" if HEAD in weights.tensors else "videomae"},
        "train": {"global_batch": 2, "steps": 1},  # nothing is trained; a classifier's clips are mixed in pairs
    }
    return recipe_from(tree, weights.uri)


def overridden(own: Recipe, overrides: Sequence[str], where: str, say: Say) -> Recipe:
    """Lay overrides over the recipe of weights that leave its clips' size and its model as they are.

    Raises:
        RecipeError: if an override changes what the weights were trained for.
    """
    tree, told = lay_overrides(own.model_dump(mode="json"), overrides)
    for line in told:
        say(line)
    recipe = recipe_from(tree, f"the recipe of {where}")
    if (recipe.grid, recipe.model) != (own.grid, own.model):
        raise RecipeError(
            f"the weights of {where} are for clips of {_clip(own)} and {own.model.size} sizes: positions are codes of"
            f" the token's number, so other clips would mean something else; got {_clip(recipe)}. Leave"
            " data.num_frames, data.size and model as they are"
        )
    return recipe


def _clip(recipe: Recipe) -> str:
    return f"{recipe.data.num_frames} frames of {recipe.data.size} px"


def load(source: Source) -> Frozen:
    """Load an encoder.

    Raises:
        WeightsError: if the weights cannot be read, are no encoder's, or are not what the recipe says.
    """
    recipe, weights = source.recipe, source_weights(source)
    encoder = Encoder(recipe.grid, shapes(recipe.model)[0])
    has_norm = LAST_NORM[0] in weights.tensors
    if not has_norm:  # of a fine-tuned model
        fresh = {name: encoder.state_dict()[name.removeprefix("encoder.")] for name in LAST_NORM}
        weights = replace(weights, tensors={**weights.tensors, **fresh})
    take_encoder(recipe, weights, encoder)
    encoder.requires_grad_(False).eval()
    where = {**source.said, "kind": weights.kind, "heads": shapes(recipe.model)[0].heads}
    return Frozen(encoder, recipe.grid, has_norm, where)


def source_weights(source: Source) -> Weights:
    """Read the weights of a source, or draw them."""
    if not source.untrained:
        return read_any(source.weights)
    drawn = build_model(source.recipe, torch.device("cpu")).state_dict()
    return Weights(source.weights, "drawn before step 0", drawn, heads_of(source.recipe.model))


def take_encoder(recipe: Recipe, weights: Weights, encoder: nn.Module) -> None:
    """Copy the weights of an encoder into one.

    Raises:
        WeightsError: if they are not what the recipe says; the encoder is as it was then.
    """
    holder = nn.ModuleDict({"encoder": encoder})
    take(holder, fit_recipe(recipe, weights, holder))


def load_encoder(recipe: Recipe, uri: str) -> Encoder:
    """Return an encoder with its last norm, behind which features are taken; in host memory.

    Raises:
        WeightsError: if the weights cannot be read, do not fit, or have no such norm.
    """
    frozen = load(Source(recipe, uri))
    if not frozen.has_norm:
        raise WeightsError(
            f"{uri} has no encoder.norm, the LayerNorm behind which features are taken: a fine-tuned model does"
            " without; take the pre-trained one that it came from"
        )
    return frozen.encoder


def encoder_digest(encoder: nn.Module) -> str:
    """Return the digest of an encoder's weights."""
    return digest(encoder.state_dict())
