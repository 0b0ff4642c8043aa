"""Features of clips: which tokens, and which pooling."""

from __future__ import annotations

import numpy as np
import torch

from system.core.clip import token_grid
from system.evaluate.features import float_frames, pooled

GRID = token_grid(4, 32, 2, 16)


def test_the_mean_is_that_of_all_tokens_and_slots_keep_their_order() -> None:
    tokens = torch.randn(3, GRID.tokens, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pooled(tokens, GRID, "mean"), tokens.mean(1), atol=1e-6)
    slots = pooled(tokens, GRID, "slots")
    assert slots.shape == (3, 2 * 5)
    assert torch.allclose(slots[:, :5], tokens[:, :4].mean(1), atol=1e-6)
    assert torch.allclose(slots[:, 5:], tokens[:, 4:].mean(1), atol=1e-6)


def test_frames_are_shares_of_white_with_the_channels_first() -> None:
    frames = np.zeros((1, 4, 32, 32, 3), np.uint8)
    frames[0, 2, 5, 7] = (255, 51, 0)
    clips = float_frames(frames)
    assert clips.shape == (1, 3, 4, 32, 32)
    assert clips[0, :, 2, 5, 7].tolist() == [1.0, torch.tensor(51 / 255).item(), 0.0]
    assert clips.sum() == 1 + torch.tensor(51 / 255)
