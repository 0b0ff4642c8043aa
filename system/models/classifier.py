"""A video classifier: the encoder over all tokens, their mean, a fresh LayerNorm and a linear head.

The encoder's own last LayerNorm is left out, as VideoMAE does: the fresh one stands behind the pooling instead. Names
are those of the released fine-tuning code (`encoder.` aside).

B clips, T frames of H x W px, N tokens, D width, C classes, L blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from system.core.clip import TokenGrid
from system.models.blocks import NORM_EPS, initialize
from system.models.encoder import Encoder
from system.models.sizes import Shape

# VideoMAE's head starts at a thousandth of the usual size, so that the first steps hardly move the encoder.
HEAD_STD = 0.02 * 0.001


@dataclass(frozen=True, slots=True)
class Drops:
    """What is left out at random in training.

    Attributes:
        path: rate of the last block's branches; it grows evenly from 0 at the first (stochastic depth).
        head: rate of the head's inputs.
    """

    path: float = 0.0
    head: float = 0.0


class Classifier(nn.Module):
    """An encoder with a head.

    Args:
        grid: the token grid.
        shape: of the encoder.
        classes: C.
        drops: what is left out where draws are given.
    """

    def __init__(self, grid: TokenGrid, shape: Shape, classes: int, drops: Drops | None = None) -> None:
        super().__init__()
        self.grid, self.drops = grid, drops or Drops()
        self.encoder = Encoder(grid, shape, last_norm=False)
        self.fc_norm = nn.LayerNorm(shape.width, eps=NORM_EPS)
        self.head = nn.Linear(shape.width, classes)
        initialize(self)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, frames: Tensor, draws: Tensor | None = None) -> dict[str, Tensor]:
        """Classify clips.

        Args:
            frames: (B, 3, T, H, W) float in [0, 1].
            draws: (B, R) uniform in [0, 1), of training: 2L of drop path where its rate is above 0, then D of the
                head's dropout where that is; None: nothing is left out.

        Returns:
            `logits` (B, C).
        """
        shown = torch.arange(self.grid.tokens, device=frames.device).expand(len(frames), -1)
        branches = 2 * len(self.encoder.blocks) if self.drops.path else 0
        kept = self._kept(draws[:, :branches]) if draws is not None and branches else None
        x: Tensor = self.fc_norm(self.encoder(frames, shown, kept).mean(1))
        if draws is not None and self.drops.head:
            x = x * (draws[:, branches:] >= self.drops.head) / (1 - self.drops.head)
        return {"logits": self.head(x)}

    def _kept(self, draws: Tensor) -> Tensor:
        """Return the factor of each branch, so that the mean stays: (B, 2L) draws -> (B, L, 2), 0 or 1 / (1 - rate)."""
        depth = len(self.encoder.blocks)
        rates = torch.linspace(0, self.drops.path, depth, device=draws.device)[:, None]
        kept: Tensor = (draws.reshape(-1, depth, 2) >= rates) / (1 - rates)
        return kept
