"""The weights that a fresh run starts from: `train.init_from`, a file, a folder, another run, or a checkpoint of it.

Read once, before step 0. A run that has a checkpoint never reads it again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from system import storage
from system.config import ModelSection
from system.core.clip import TokenGrid
from system.data.classes import has_classes, read_classes
from system.data.dataset import run_uri
from system.errors import CheckpointFault, RecipeError, ResumeError, WeightsError
from system.models.fit import Fit, fit, take
from system.models.heads import HEAD, Head, head_for, without_head
from system.models.sizes import shapes
from system.models.weight_files import Weights, is_file, read_weights
from system.recipe import Recipe
from system.train.checkpoint import Checkpoint, chosen, open_checkpoint
from system.train.fragments import WEIGHTS, Fragment
from system.train.judging import build_model
from system.train.kept_recipe import run_recipe
from system.train.manifest import FOLDER, MANIFEST
from system.train.torch_engine import rank_and_size


def checkpoint_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the weights of a checkpoint by name, float32, whatever the method.

    Raises:
        CheckpointFault: if a piece is missing or does not match its checksum.
    """
    tensors = {name: torch.empty(shape, dtype=torch.float32) for name, shape in checkpoint.shapes.items()}
    checkpoint.fill([Fragment(name, WEIGHTS, 0, values.view(-1)) for name, values in tensors.items()])
    return tensors


def heads_of(model: ModelSection) -> tuple[int, int]:
    """Return the numbers of heads of encoder and decoder."""
    encoder, decoder = shapes(model)
    return encoder.heads, decoder.heads


def classes_of(run: str) -> tuple[str, ...] | None:
    """Return the names of the classes that a run was trained on; None if it has none.

    Raises:
        DataError: if storage refuses.
    """
    return read_classes(run) if has_classes(run) else None


def place_of(uri: str) -> str:
    """Return where weights are read: of a run's folder its newest whole checkpoint, else the URI itself.

    Raises:
        WeightsError: if a run has no whole checkpoint.
        DataError: if storage refuses it.
        StorageFault: if storage does not answer.
    """
    uri = uri.rstrip("/")
    if is_file(uri) or not storage.exists(storage.join(uri, "recipe.yaml")):
        return uri
    try:
        return chosen(uri, None).uri
    except CheckpointFault as error:
        raise WeightsError(str(error)) from error


def agreed_place(uri: str) -> str:
    """Return the place of weights that rank 0 sees, on all ranks: a run whose folder it is may still be growing.

    Raises:
        As `place_of`.
    """
    mine, (_, size) = place_of(uri), rank_and_size()
    if size == 1:
        return mine
    told: list[Any] = [None] * size
    dist.all_gather_object(told, mine)
    return str(told[0])


def read_any(uri: str) -> Weights:
    """Read a file or folder of weights, a run's newest checkpoint, or a checkpoint's folder.

    Raises:
        WeightsError: if it cannot be read; says why.
        DataError: if storage refuses it.
        StorageFault: if storage does not answer.
    """
    uri = place_of(uri)
    if is_file(uri) or not storage.exists(storage.join(uri, MANIFEST)):
        return read_weights(uri)
    run, _, name = uri.rpartition(f"/{FOLDER}/")
    number = name.removeprefix("step_")
    if not run or not number.isdigit():
        raise WeightsError(f"{uri}: a checkpoint lies in its run's folder: RUN/{FOLDER}/step_00000500")
    try:
        tensors = checkpoint_tensors(open_checkpoint(run, int(number)))
    except (CheckpointFault, ResumeError) as error:
        raise WeightsError(str(error)) from error
    classes = classes_of(run)
    try:
        theirs = run_recipe(run)
    except (WeightsError, RecipeError):  # copied without its recipe, or of another version: the tensors are what counts
        return Weights(uri, "a checkpoint", tensors, classes=classes)
    return Weights(uri, "a checkpoint", tensors, heads_of(theirs.model), classes, theirs.grid)


def fit_recipe(recipe: Recipe, weights: Weights, model: nn.Module) -> Fit:
    """Find what a recipe's model takes of weights.

    Args:
        recipe: of the run.
        weights: in our naming.
        model: the recipe's; may be on the meta device.

    Raises:
        WeightsError: if they do not fit; names the file and the keys. Or if they are of a run of other clips.
    """
    head = _head(recipe, weights) if HEAD in model.state_dict() else Head(weights.tensors)
    found = fit(model.state_dict(), head.tensors, weights.uri)
    used = {name.split(".")[0] for name in found.take if ".blocks." in name}
    fields = [("model.heads", True), ("model.decoder_heads", any("decoder" in part for part in used))]
    for (field, matters), theirs, mine in zip(fields, weights.heads, heads_of(recipe.model), strict=True):
        if matters and theirs is not None and theirs != mine:
            raise WeightsError(
                f"{weights.uri} has {theirs} heads where the recipe's {field} is {mine}: the shapes agree, and the"
                f" model would compute something else; set {field}={theirs}"
            )
    return replace(found, notes=(*found.notes, *filter(None, [head.note, _positions(recipe, weights)])))


def _positions(recipe: Recipe, weights: Weights) -> str | None:
    """Say what positions are taken to be where nothing says it; refuse those of other clips, which no shape shows."""
    mine = _clip(recipe.grid)
    if weights.grid is None:
        return f"nothing says of which clips its positions are: taken to be the recipe's, {mine}"
    if weights.grid == recipe.grid:
        return None
    raise WeightsError(
        f"{weights.uri} was trained on clips of {_clip(weights.grid)}, and the recipe's are of {mine}: the shapes"
        " agree, and positions, codes of the token's number, would mean something else; set"
        f" data.num_frames={weights.grid.num_frames} data.size={weights.grid.height}, or take other weights"
    )


def _clip(grid: TokenGrid) -> str:
    return f"{grid.num_frames} frames of {grid.height} px"


def _head(recipe: Recipe, weights: Weights) -> Head:
    """Return the weights with their head for the run's classes, or without it where it is to be drawn anew."""
    if getattr(recipe.method, "new_head", False):
        return without_head(weights.tensors)
    mine = classes_of(run_uri(recipe))
    if mine is None or HEAD not in weights.tensors:
        return Head(weights.tensors)
    return head_for(weights.tensors, weights.classes, mine, weights.uri)


def check_fit(recipe: Recipe, weights: Weights) -> Fit:
    """Find what a recipe's model would take of weights, without the memory of a model.

    Where the labels are not read yet, a head is taken to be for them.

    Raises:
        WeightsError: if they do not fit.
    """
    if recipe.record.labelled and getattr(recipe.method, "classes", None) is None:
        count = len(weights.tensors.get(HEAD, ())) or 1
        recipe = recipe.model_copy(update={"method": recipe.method.model_copy(update={"classes": count})})
    with torch.device("meta"):
        model = build_model(recipe, torch.device("meta"))
    return fit_recipe(recipe, weights, model)


def warm_start(uri: str, recipe: Recipe, module: nn.Module) -> dict[str, Any]:
    """Give a fresh model the weights of `train.init_from`: the same on every rank, all of which call this.

    Returns:
        What was taken and what was not, in plain values.

    Raises:
        WeightsError: if they cannot be read or do not fit; the model is as it was then.
    """
    weights = read_any(agreed_place(uri))
    found = fit_recipe(recipe, weights, module)
    take(module, found)
    return {
        "uri": uri,
        "read": weights.uri,
        "kind": weights.kind,
        "tensors": len(found.take),
        "drawn_anew": list(found.fresh),
        "not_used": list(found.unused),
        "notes": list(found.notes),
    }


def write_start(run: str, taken: dict[str, Any]) -> None:
    """Keep what a run started from in its folder, warm_start.json."""
    storage.write(storage.join(run, "warm_start.json"), json.dumps(taken, indent=1).encode())
