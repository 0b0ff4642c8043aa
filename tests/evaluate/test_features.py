"""Features of clips: which tokens, which pooling, and that they do not depend on how clips are batched."""

from __future__ import annotations

import numpy as np
import torch

from system.core.clip import token_grid
from system.evaluate.features import all_tokens, clip_features, float_frames, pooled
from system.models.encoder import Encoder
from system.models.sizes import Shape

GRID = token_grid(4, 32, 2, 16)


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(GRID, Shape(48, 2, 3))


def clips(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 4, 32, 32, 3)).astype(np.uint8)


def test_the_mean_is_that_of_all_tokens_and_slots_keep_their_order() -> None:
    model, frames = encoder(), clips(3)
    with torch.no_grad():
        tokens = model(float_frames(frames), all_tokens(3, GRID))
    assert torch.allclose(clip_features(model, frames, GRID, pool="mean"), tokens.mean(1), atol=1e-6)
    slots = clip_features(model, frames, GRID, pool="slots")
    assert slots.shape == (3, 2 * 48)
    assert torch.allclose(slots[:, :48], tokens[:, :4].mean(1), atol=1e-6)
    assert torch.allclose(slots.reshape(3, 2, 48).mean(1), pooled(tokens, GRID, "mean"), atol=1e-6)


def test_features_do_not_depend_on_the_batch() -> None:
    model, frames = encoder(), clips(5)
    assert torch.allclose(clip_features(model, frames, GRID, batch=2), clip_features(model, frames, GRID), atol=1e-6)


def test_extracting_features_leaves_the_encoder_in_its_mode_and_without_gradients() -> None:
    model = encoder().train()
    assert not clip_features(model, clips(2), GRID).requires_grad
    assert model.training
