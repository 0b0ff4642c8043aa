"""Motion sources compared on clips of a data set: from arguments to a table and a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from system import storage
from system.data.dataset import ensure_index
from system.errors import DataError, RecipeError
from system.recipe import Recipe, recipe_from
from system.report.motion_clips import MotionClip, motion_clips
from system.report.motion_picture import motion_picture
from system.report.motion_sources import Setting, Weights, estimators, reference_of
from system.report.motion_table import Compared, Scores, Visible, compare, table

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is compared, and on what.

    Attributes:
        names: of the sources.
        weights: RAFT's.
        clips: how many are tried.
        device: torch device of sources that are networks.
        pictures: clips on the picture.
    """

    names: tuple[str, ...]
    weights: Weights
    clips: int
    device: str
    pictures: int


def comparison_recipe(uri: str, folder: str, **fields: float) -> Recipe:
    """Return the recipe whose clips, pairs and masks are compared: MGMAE's defaults over a data set.

    Args:
        uri: as `data.uri`.
        folder: where generated videos and an index are kept.
        fields: of the section `data`, and `mask_ratio`.

    Raises:
        RecipeError: if a value does not fit.
    """
    uri = uri if "://" in uri else storage.absolute(uri)
    digest = hashlib.sha256(uri.encode()).hexdigest()[:8]  # an index belongs to its data
    tree = {
        "run": {"name": f"motion-{digest}", "storage": folder},
        "data": {"uri": uri, **{name: value for name, value in fields.items() if name != "mask_ratio"}},
        "motion": {"source": "dis"},
        "method": {"name": "mgmae", "mask_ratio": fields["mask_ratio"]},
        "train": {"global_batch": 1, "steps": 1},
    }
    return recipe_from(tree, "the clips that are compared")


def compare_sources(recipe: Recipe, asked: Asked, say: Say) -> tuple[str, bytes | None]:
    """Compare sources on the first clips of a recipe's plan.

    Args:
        recipe: see `comparison_recipe`.
        asked: what is compared.
        say: takes lines about what is left out.

    Returns:
        The table, and a PNG file's bytes if a picture is wanted.

    Raises:
        RecipeError: if a name stands for no source, or a source cannot work with the clips.
        WeightsError: RAFT's weights are missing or of another network.
        DataError: if there is no data, or no clip of it can be decoded.
    """
    grid, weights = recipe.grid, asked.weights
    names, reference = reference_of(asked.names, weights, recipe.data.uri)
    pairs = recipe.record.pairs(recipe.method, grid.num_frames)
    sources = estimators(names, Setting(weights, pairs, grid.height, asked.device, say))
    if not sources:
        raise RecipeError("no source is left to compare; give --weights or --random-weights, or other --sources")

    def mask(clip: MotionClip, flow: torch.Tensor) -> Visible:
        return recipe.record.mask(clip.noise, flow, grid, recipe.method).reshape(-1)

    meaningless = [name for name in sources if name.startswith("raft") and weights.random]
    scores = Scores(reference)
    kept: list[Compared] = []
    clips = motion_clips(recipe, ensure_index(recipe, say=say), asked.clips, lambda *bad: say("{}: {}".format(*bad)))
    for compared in compare(clips, sources, mask, meaningless):
        scores.add(compared)
        kept += [compared] if len(kept) < asked.pictures else []
    if not scores.clips:
        raise DataError(f"{recipe.data.uri}: not one of {asked.clips} clips can be decoded")
    about = f"{scores.clips} clips of {grid.num_frames} x {grid.height} x {grid.width}, stride {recipe.data.stride}"
    text = f"{about}, from {recipe.data.uri}\n\n{table(scores.lines(), reference)}"
    return text, motion_picture(kept, reference, grid) if kept else None
