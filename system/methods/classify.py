"""Fine-tuning with labels: an encoder that sees every token, a pooled head, soft targets (VideoMAE's fine-tuning code).

Not a pre-training method: nothing is hidden. It is carried out by the same stream, loop and engines. Everything that is
random about a clip (its frames, crop, colours, partner, the branches that it drops) is drawn for the clip's place in
the plan and travels in its row, so that micro-batches, ranks and restarts change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from system.config import ModelSection
from system.core.clip import TokenGrid
from system.lazy import lazy
from system.methods.base import Method
from system.methods.labelled import LabelledOptions
from system.models.sizes import encoder_flops, shapes

if TYPE_CHECKING:
    from torch import Tensor

    from system.core import losses, masks
    from system.core.masks import Noise, Visible
    from system.models import classifier
else:
    losses, masks = lazy("system.core.losses"), lazy("system.core.masks")
    classifier = lazy("system.models.classifier")


class ClassifyOptions(LabelledOptions):
    """What fine-tuning is; the defaults are those of VideoMAE's code."""

    name: Literal["classify"] = "classify"
    new_head: bool = Field(
        False, description="Draw the head anew where `train.init_from` has one; else its classes must be these."
    )
    smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.1, description="Of the labels.")
    drop_path: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="Share of clips for which a block's branch is left out: 0 at the first, this at the last."
    )
    head_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, description="Dropout before the head.")
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.75, description="Factor of the learning rate from each block to the one below it."
    )


def num_visible(_options: ClassifyOptions, grid: TokenGrid) -> int:
    """Count the tokens that the encoder sees: all."""
    return grid.tokens


def mask(noise: Noise, _flow: Tensor | None, grid: TokenGrid, _options: ClassifyOptions) -> Visible:
    """Hide nothing."""
    return masks.all_visible(noise, grid)


def num_draws(options: ClassifyOptions, model: ModelSection) -> int:
    """Count the numbers that are drawn for a clip's forward pass: two branches a block, then the head's inputs."""
    encoder, _ = shapes(model)
    branches = 2 * encoder.depth if options.drop_path else 0
    return branches + (encoder.width if options.head_dropout else 0)


def build(model: ModelSection, grid: TokenGrid, options: ClassifyOptions) -> classifier.Classifier:
    """Build the encoder and its head."""
    if options.classes is None:
        raise ValueError("method.classes is known once the labels are read")
    drops = classifier.Drops(options.drop_path, options.head_dropout)
    return classifier.Classifier(grid, shapes(model)[0], options.classes, drops)


def loss(
    predicted: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    _counted: Tensor | None,
    options: ClassifyOptions,
) -> dict[str, Tensor]:
    """Return each clip's cross-entropy with its smoothed, mixed label.

    Args:
        predicted: `logits` (B, C).
        wanted: `label` and `other` (B,) int64, and `share` (B,), the part of `label` in the mixture.
        options: of fine-tuning.
    """
    return {
        "label": losses.mixed_cross_entropy(
            predicted["logits"], wanted["label"], wanted["other"], wanted["share"], options.smoothing
        )
    }


def flops(model: ModelSection, grid: TokenGrid, options: ClassifyOptions) -> int:
    """Return what the forward pass of one clip costs."""
    encoder, _ = shapes(model)
    return encoder_flops(model, grid, grid.tokens) + 2 * encoder.width * (options.classes or 0)


def lr_scale(name: str, model: ModelSection, options: ClassifyOptions) -> float:
    """Return the factor of a parameter's learning rate: `layer_decay` for each layer above it."""
    depth = shapes(model)[0].depth
    return float(options.layer_decay ** (depth + 1 - layer_of(name, depth)))


def layer_of(name: str, depth: int) -> int:
    """Return how far up a parameter is: 0 for the embedding, k + 1 for block k, depth + 1 for the head and its norm."""
    parts = name.split(".")
    if parts[0] != "encoder":
        return depth + 1
    return int(parts[2]) + 1 if parts[1] == "blocks" else 0


CLASSIFY = Method(
    name="classify",
    source="arXiv:2203.12602",
    options=ClassifyOptions,
    labelled=True,
    files=("labels",),
    num_visible=num_visible,
    mask=mask,
    num_draws=num_draws,
    targets={},
    build=build,
    loss=loss,
    flops=flops,
    lr_scale=lr_scale,
)
