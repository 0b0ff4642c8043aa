"""The encoder of a run, or of a file of weights, with the grid of tokens that it was trained on: frozen, for use.

What a file does not say (the grid of its clips; its heads, if it is a pickle) comes from a recipe, or is taken to be
what released weights have: clips of 16 x 224 x 224, 64 channels a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from system.core.clip import TokenGrid, token_grid
from system.errors import WeightsError
from system.evaluate.provenance import digest
from system.models.encoder import Encoder
from system.models.sizes import Shape, shapes
from system.models.weights import sizes_of, some
from system.recipe import Recipe, dump_recipe
from system.train.checkpoint import chosen
from system.train.judging import build_model
from system.train.manifest import FOLDER
from system.train.warm_start import checkpoint_tensors, read_any, run_recipe

_PREFIX = "encoder."
# Of released weights.
RELEASED_FRAMES, RELEASED_SIZE_PX, HEAD_CHANNELS = 16, 224, 64


@dataclass(frozen=True)
class Frozen:
    """An encoder at work.

    Attributes:
        encoder: in host memory, without gradients.
        grid: that it was trained on.
        has_norm: whether the weights have the encoder's last norm; else it does nothing but normalise.
        said: where it comes from, in plain values for a results file.
    """

    encoder: Encoder
    grid: TokenGrid
    has_norm: bool
    said: Mapping[str, Any]


def from_run(run: str, step: int | None, say: Callable[[str], None], *, untrained: bool = False) -> Frozen:
    """Take the encoder of a run's checkpoint.

    Args:
        run: URI of its folder.
        step: of the checkpoint; None: the newest whole one.
        say: is told of checkpoints that are passed over.
        untrained: weights as they are drawn before step 0 instead, for comparison.

    Raises:
        WeightsError: if there is no such run or checkpoint.
        CheckpointFault: if the checkpoint is damaged.
    """
    recipe = run_recipe(run)
    said = {"run": run, "recipe": dump_recipe(recipe)}
    if untrained:
        return _frozen(recipe.grid, shapes(recipe.model)[0], _drawn(recipe), {**said, "step": 0, "untrained": True})
    checkpoint = chosen(run, step, say)
    return _frozen(
        recipe.grid, shapes(recipe.model)[0], checkpoint_tensors(checkpoint), {**said, "step": checkpoint.step}
    )


def from_weights(uri: str, recipe: Recipe | None = None) -> Frozen:
    """Take the encoder of a file or folder of weights, or of a checkpoint.

    Args:
        uri: local or s3://.
        recipe: whose grid and heads they were trained with; None: those of released weights.

    Raises:
        WeightsError: if they cannot be read, are no encoder's, or are not what the recipe says.
    """
    run, _, name = uri.rstrip("/").rpartition(f"/{FOLDER}/step_")
    if recipe is None and run and name.isdigit():
        return from_run(run, int(name), lambda _line: None)
    weights = read_any(uri)
    sizes = sizes_of(weights.tensors, uri)
    if recipe is not None:
        grid, shape = recipe.grid, shapes(recipe.model)[0]
    else:
        heads = weights.heads[0] or max(1, sizes.width // HEAD_CHANNELS)
        shape = Shape(sizes.width, sizes.depth, heads)
        if sizes.width % heads or RELEASED_FRAMES % sizes.tubelet_frames or RELEASED_SIZE_PX % sizes.patch_px:
            raise WeightsError(f"{uri}: {sizes} are not of clips of 16 x 224 x 224; say their recipe, --recipe FILE")
        grid = token_grid(RELEASED_FRAMES, RELEASED_SIZE_PX, sizes.tubelet_frames, sizes.patch_px)
    if weights.heads[0] not in (None, shape.heads):
        raise WeightsError(f"{uri} has {weights.heads[0]} heads, the recipe {shape.heads}; name the recipe of its run")
    said = {"weights": uri, "kind": weights.kind, "recipe": dump_recipe(recipe) if recipe else None}
    return _frozen(grid, shape, weights.tensors, said)


def _drawn(recipe: Recipe) -> Mapping[str, Tensor]:
    return build_model(recipe, torch.device("cpu")).state_dict()


def _frozen(grid: TokenGrid, shape: Shape, tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> Frozen:
    encoder = Encoder(grid, shape)
    own = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
    wanted = encoder.state_dict()
    has_norm = "norm.weight" in own
    if not has_norm:  # of a fine-tuned model
        own |= {name: wanted[name] for name in ("norm.weight", "norm.bias")}
    wrong = [name for name in wanted if name not in own or own[name].shape != wanted[name].shape]
    wrong += sorted(own.keys() - wanted.keys())
    if wrong:
        where = said.get("weights") or said.get("run")
        raise WeightsError(
            f"{where}: {len(wrong)} tensors of the encoder are missing, too many or of other shapes than {shape} on"
            f" {grid.tubelet_frames} x {grid.patch_px} x {grid.patch_px} has: {some(wrong)}; name the recipe that they"
            " were trained with"
        )
    encoder.load_state_dict(own)
    encoder.requires_grad_(False).eval()
    facts = {"width": shape.width, "depth": shape.depth, "heads": shape.heads}
    trained_on = {"frames": grid.num_frames, "size_px": grid.height, "tubelet": grid.tubelet_frames}
    return Frozen(
        encoder,
        grid,
        has_norm,
        {**said, "sha256": digest(own), "encoder": facts, "trained_on": {**trained_on, "patch_px": grid.patch_px}},
    )
