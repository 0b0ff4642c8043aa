"""A frozen encoder: found in a run or a file of weights, loaded, and applied to the views of videos.

B videos, V views of each, T frames of H x W px, S slots, N tokens, D width, F' features of a view, Q kept tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from system.core.clip import TokenGrid
from system.core.views import Views
from system.data.assemble import limits_of
from system.data.columns import Batch
from system.data.viewing import ViewSpec
from system.errors import RecipeError
from system.evaluate.features import Pool, all_tokens, batches, float_frames, pooled
from system.evaluate.provenance import digest
from system.models.encoder import Encoder
from system.models.fit import take
from system.models.sizes import shapes
from system.recipe import Recipe, recipe_from
from system.recipe_tree import lay_overrides
from system.train.warm_start import fit_recipe, read_any, run_recipe

Say = Callable[[str], None]
Precision = Literal["fp32", "bf16"]
# What every features file says of its numbers.
FEATURES = (
    "output of the encoder with its last LayerNorm, all tokens visible, ImageNet statistics; mean over a view's tokens"
)
SLOTS = "; one mean for each slot of time, in their order"


@dataclass(frozen=True, slots=True)
class Extraction:
    """What is computed of each video; it travels to actors.

    Attributes:
        recipe: sizes of clip and encoder, limits of decoding.
        weights: URI of a checkpoint's folder, a file or a folder of weights.
        views: of each video.
        pool: how a view's tokens become one vector.
        tokens_side: keep a view's tokens too, averaged to so many rows and columns in each slot; None: do not.
        precision: of the encoder.
        batch: views of one forward.
        keep_views: keep what each view gives, besides their mean.
    """

    recipe: Recipe
    weights: str
    views: Views
    pool: Pool = "mean"
    tokens_side: int | None = None
    precision: Precision = "fp32"
    batch: int = 16
    keep_views: bool = False

    @property
    def spec(self) -> ViewSpec:
        """What is looked at of each video."""
        data = self.recipe.data
        return ViewSpec(self.recipe.grid, data.stride, self.views, data.decoder, limits_of(self.recipe))

    @property
    def width(self) -> int:
        """F', numbers of a view."""
        width = shapes(self.recipe.model)[0].width
        return width * self.recipe.grid.slots if self.pool == "slots" else width

    @property
    def tokens_shape(self) -> tuple[int, int]:
        """(Q, D) of the kept tokens of a view; Q is 0 where none are kept."""
        return self.recipe.grid.slots * (self.tokens_side or 0) ** 2, shapes(self.recipe.model)[0].width

    def meaning(self) -> str:
        """Say what the numbers of a view are."""
        return FEATURES + (SLOTS if self.pool == "slots" else "")


def recipe_of_run(run: str, overrides: Sequence[str], say: Say) -> Recipe:
    """Return a run's recipe with overrides that leave its clips' size and its model as they are.

    Raises:
        WeightsError: if the folder is no run's.
        RecipeError: if an override changes what the weights were trained for.
    """
    own = run_recipe(run)
    tree, told = lay_overrides(own.model_dump(mode="json"), overrides)
    for line in told:
        say(line)
    recipe = recipe_from(tree, f"{run}/recipe.yaml")
    if (recipe.grid, recipe.model) != (own.grid, own.model):
        raise RecipeError(
            f"the weights of {run} are for clips of {_clip(own)} and {own.model.size} sizes: positions are codes of the"
            f" token's number, so other clips would mean something else; got {_clip(recipe)}. Leave data.num_frames,"
            " data.size and model as they are"
        )
    return recipe


def _clip(recipe: Recipe) -> str:
    return f"{recipe.data.num_frames} frames of {recipe.data.size} px"


def load_encoder(recipe: Recipe, uri: str) -> Encoder:
    """Return a recipe's encoder with weights, in host memory.

    Raises:
        WeightsError: if they cannot be read or do not fit.
    """
    encoder = Encoder(recipe.grid, shapes(recipe.model)[0])
    holder = nn.ModuleDict({"encoder": encoder})
    take(holder, fit_recipe(recipe, read_any(uri), holder))
    return encoder.eval()


def encoder_digest(encoder: Encoder) -> str:
    """Return the digest of an encoder's weights."""
    return digest(encoder.state_dict())


def cells(tokens: Tensor, grid: TokenGrid, side: int) -> Tensor:
    """Average tokens over neighbouring places: (B, N, D) -> (B, S x side x side, D).

    Raises:
        ValueError: if `side` does not divide the grid.
    """
    if grid.rows % side or grid.cols % side:
        raise ValueError(f"{side} does not divide the {grid.rows} x {grid.cols} places of a slot")
    # (B, S, side, rows / side, side, cols / side, D)
    cut = tokens.reshape(len(tokens), grid.slots, side, grid.rows // side, side, grid.cols // side, -1)
    return cut.mean((3, 5)).flatten(1, 3)


class Featurizer:
    """Frames of views to features, on a device.

    Args:
        work: what is computed.
        encoder: with its weights.
        device: a torch device's name.
    """

    def __init__(self, work: Extraction, encoder: Encoder, device: str) -> None:
        self._work, self._device = work, device
        self._encoder = encoder.to(device).eval()

    def __call__(self, batch: Batch) -> Batch:
        """Features of the columns that `ViewDecoder` gives.

        Returns:
            `video_id`, `error` and `seen` as they were, `features` (B, V, F') float32 and, where they are kept,
            `tokens` (B, V, Q, D) float16; zeros for a view that is not there.
        """
        seen = batch["seen"]
        flat, rows = batch["frames"].reshape(-1, *batch["frames"].shape[2:]), np.flatnonzero(seen)
        features = np.zeros((seen.size, self._work.width), np.float32)
        tokens = np.zeros((seen.size, *self._work.tokens_shape), np.float16)
        for part in batches(len(rows), self._work.batch):
            found, kept = self._of_clips(torch.from_numpy(flat[rows[part]]))
            features[rows[part]] = found.cpu().numpy()
            if kept is not None:
                tokens[rows[part]] = kept.half().cpu().numpy()
        out = {name: batch[name] for name in ("video_id", "error", "seen")}
        out["features"] = features.reshape(*seen.shape, -1)
        if self._work.tokens_side:
            out["tokens"] = tokens.reshape(*seen.shape, *tokens.shape[1:])
        return out

    @torch.inference_mode()
    def _of_clips(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, T, H, W, 3) uint8 -> (B, F') and (B, Q, D)."""
        grid, side = self._work.recipe.grid, self._work.tokens_side
        clips = float_frames(frames, self._device)
        kind = torch.device(self._device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self._work.precision == "bf16"):
            tokens = self._encoder(clips, all_tokens(len(clips), grid, self._device)).float()
        return pooled(tokens, grid, self._work.pool), cells(tokens, grid, side) if side else None
