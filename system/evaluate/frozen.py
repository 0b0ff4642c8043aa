"""A frozen network applied to the views of videos: an encoder, whose features are wanted, or a classifier.

B videos, V views of each, T frames of H x W px, S slots, N tokens, D width, F' numbers of a view, Q kept tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from system.core.clip import TokenGrid
from system.core.views import Views, merged
from system.data.assemble import limits_of
from system.data.columns import Batch
from system.data.viewing import ViewSpec
from system.evaluate.classifiers import load_classifier
from system.evaluate.encoders import load_encoder
from system.evaluate.features import Pool, all_tokens, batches, float_frames, pooled
from system.models.sizes import shapes
from system.recipe import Recipe

Precision = Literal["fp32", "bf16"]
# What every features file says of its numbers.
FEATURES = (
    "output of the encoder with its last LayerNorm, all tokens visible, ImageNet statistics; mean over a view's tokens"
)
SLOTS = "; one mean for each slot of time, in their order"
LOGITS = "logits of the classifier, all tokens visible, ImageNet statistics"


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
        keep_views: keep what each view gives, besides what they give together.
        classes: names of the classes of a classifier, whose logits are then a view's numbers; none: features of an
            encoder.
    """

    recipe: Recipe
    weights: str
    views: Views
    pool: Pool = "mean"
    tokens_side: int | None = None
    precision: Precision = "fp32"
    batch: int = 16
    keep_views: bool = False
    classes: tuple[str, ...] = ()

    @property
    def spec(self) -> ViewSpec:
        """What is looked at of each video."""
        data = self.recipe.data
        return ViewSpec(self.recipe.grid, data.stride, self.views, data.decoder, limits_of(self.recipe))

    @property
    def width(self) -> int:
        """F', numbers of a view."""
        if self.classes:
            return len(self.classes)
        width = shapes(self.recipe.model)[0].width
        return width * self.recipe.grid.slots if self.pool == "slots" else width

    @property
    def tokens_shape(self) -> tuple[int, int]:
        """(Q, D) of the kept tokens of a view; Q is 0 where none are kept."""
        return self.recipe.grid.slots * (self.tokens_side or 0) ** 2, shapes(self.recipe.model)[0].width

    @property
    def names(self) -> tuple[str, str]:
        """What the numbers of a video are called, and those of a view."""
        return ("probabilities", "logits") if self.classes else ("embedding", "features")

    def together(self, views: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.floating]:
        """Return the numbers of videos: (n, V, F') and (n, V) -> (n, F'); zeros where nothing was seen."""
        if self.classes:
            return merged(views, seen)
        means = (views * seen[..., None]).sum(1, dtype=np.float64) / np.maximum(seen.sum(1), 1)[:, None]
        return np.asarray(means)

    def meaning(self) -> tuple[str, str]:
        """Say what the numbers of a view are, and those of a video."""
        if self.classes:
            return LOGITS, "softmax of each view that could be read, then their mean"
        return self._features(), "mean over the views that could be read"

    def _features(self) -> str:
        return FEATURES + (SLOTS if self.pool == "slots" else "")


def load_network(work: Extraction) -> nn.Module:
    """Return the network of some work with its weights, in host memory.

    Raises:
        WeightsError: if they cannot be read or do not fit.
    """
    if work.classes:
        return load_classifier(work.recipe, work.weights, len(work.classes))
    return load_encoder(work.recipe, work.weights)


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
    """Frames of views to their numbers, on a device.

    Args:
        work: what is computed.
        network: of the work (`load_network`), with its weights.
        device: a torch device's name.
    """

    def __init__(self, work: Extraction, network: nn.Module, device: str) -> None:
        self._work, self._device = work, device
        self._network = network.to(device).eval()

    def __call__(self, batch: Batch) -> Batch:
        """Numbers of the columns that `ViewDecoder` gives.

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
            if self._work.classes:
                return self._network(clips)["logits"].float(), None
            tokens = self._network(clips, all_tokens(len(clips), grid, self._device)).float()
        return pooled(tokens, grid, self._work.pool), cells(tokens, grid, side) if side else None
