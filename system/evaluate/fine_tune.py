"""Fine-tuning of a pre-trained encoder with labels: mean over all tokens, a fresh LayerNorm, a linear head.

The encoder's own last LayerNorm is left out, as VideoMAE does: the fresh one stands behind the pooling instead.

B clips, T frames of H x W px, N tokens, D width, C classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from system.core.clip import TokenGrid
from system.core.schedules import lr_at
from system.evaluate.features import all_tokens, batches, float_frames, pooled
from system.models.blocks import NORM_EPS

# VideoMAE's head starts at a thousandth of the usual size, so that the first steps hardly move the encoder.
HEAD_STD = 0.02 * 0.001


@dataclass(frozen=True, slots=True)
class FineTuneOptions:
    """What a fine-tuning run is.

    Attributes:
        epochs: passes over the labelled clips; the last step may lie inside of one.
        batch: clips of one step.
        lr: highest learning rate, of the head.
        layer_decay: factor of the learning rate from each block to the one below it; 1: the same for all.
        weight_decay: of matrices.
        warmup: share of the steps.
        smoothing: of the labels.
        steps: at most so many, for a quick look.
    """

    epochs: float = 10
    batch: int = 32
    lr: float = 1e-3
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    warmup: float = 0.1
    smoothing: float = 0.1
    steps: int | None = None


class Classifier(nn.Module):
    """An encoder with a head.

    Args:
        encoder: as `system.models.encoder.Encoder`; it is copied.
        grid: the token grid.
        classes: C.
    """

    def __init__(self, encoder: nn.Module, grid: TokenGrid, classes: int) -> None:
        super().__init__()
        self.grid = grid
        self.encoder = copy.deepcopy(encoder)
        norm = self.encoder.norm
        assert isinstance(norm, nn.LayerNorm)
        width = int(norm.normalized_shape[0])
        self.encoder.norm = nn.Identity()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, T, H, W) float in [0, 1] -> (B, C)."""
        tokens = self.encoder(frames, all_tokens(len(frames), self.grid, frames.device))
        out: Tensor = self.head(self.norm(pooled(tokens, self.grid, "mean")))
        return out


def layer_of(name: str, depth: int) -> int:
    """Return how far up a classifier's parameter is: 0 for the embedding, k + 1 for block k, depth + 1 for the head."""
    parts = name.split(".")
    if parts[0] != "encoder":
        return depth + 1
    return int(parts[2]) + 1 if parts[1] == "blocks" else 0


def decayed_groups(model: Classifier, options: FineTuneOptions) -> list[dict[str, Any]]:
    """Return parameter groups with `lr_scale` by layer; 1-D parameters are not decayed."""
    blocks = model.encoder.blocks
    assert isinstance(blocks, nn.ModuleList)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, param in model.named_parameters():
        groups.setdefault((layer_of(name, len(blocks)), param.ndim > 1), []).append(param)
    return [
        {
            "params": params,
            "weight_decay": options.weight_decay if matrix else 0.0,
            "lr_scale": options.layer_decay ** (len(blocks) + 1 - layer),
        }
        for (layer, matrix), params in groups.items()
    ]


def fine_tune(
    encoder: nn.Module,
    frames: NDArray[np.uint8],
    labels: Tensor,
    grid: TokenGrid,
    classes: int,
    options: FineTuneOptions,
    seed: int,
) -> tuple[Classifier, list[float]]:
    """Train an encoder and a new head on labelled clips.

    Args:
        encoder: where it starts from; it is not changed.
        frames: (n, T, H, W, 3) uint8.
        labels: (n,) int64 in [0, classes).
        grid: the token grid.
        classes: C.
        options: of the training.
        seed: of the head's weights and of the order of the clips.

    Returns:
        The trained classifier, and the loss of each step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(encoder, grid, classes)
    device = next(encoder.parameters()).device
    model.to(device).train()
    optimizer = torch.optim.AdamW(decayed_groups(model, options), lr=0.0, betas=(0.9, 0.999))
    total = max(1, round(options.epochs * len(frames) / options.batch))
    draw = np.random.default_rng(seed)
    order = np.concatenate([draw.permutation(len(frames)) for _ in range(int(options.epochs) + 1)])
    losses = []
    for step in range(total if options.steps is None else min(total, options.steps)):
        rows = order[step * options.batch : (step + 1) * options.batch]
        lr = lr_at(step, total=total, warmup=round(options.warmup * total), peak=options.lr, final=0.0)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        logits = model(float_frames(frames[rows], device))
        loss = F.cross_entropy(logits, labels[rows].to(device), label_smoothing=options.smoothing)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return model, losses


@torch.no_grad()
def predicted_labels(model: Classifier, frames: NDArray[np.uint8], batch: int = 64) -> Tensor:
    """Return the label that a classifier gives each clip: (n,) int64, in host memory."""
    device = next(model.parameters()).device
    model.eval()
    return torch.cat(
        [model(float_frames(frames[rows], device)).argmax(1).cpu() for rows in batches(len(frames), batch)]
    )


def accuracy(model: Classifier, frames: NDArray[np.uint8], labels: Tensor) -> float:
    """Return the share of clips that a classifier puts right."""
    return float((predicted_labels(model, frames) == labels).double().mean())
