from __future__ import annotations

import torch

from system.core.clip import token_grid
from system.core.losses import mean_squared
from system.core.targets import normalized_pixels, patchify, pixels, token_statistics, unpatchify

GRID = token_grid(4, 32, 2, 16)


def test_cutting_and_putting_back_is_the_identity() -> None:
    frames = torch.rand(2, 3, 4, 32, 32)
    assert torch.equal(unpatchify(pixels(frames, GRID), GRID), frames)


def test_a_tokens_values_are_ordered_frame_row_col_colour() -> None:
    frames = torch.rand(1, 3, 4, 32, 32)
    token = pixels(frames, GRID)[0, 4 + 3].reshape(2, 16, 16, 3)  # slot 1, row 1, col 1
    assert torch.equal(token, frames[0, :, 2:4, 16:, 16:].permute(1, 2, 3, 0))


def test_normalised_pixels_have_zero_mean_and_unit_variance_per_token_and_colour() -> None:
    target = normalized_pixels(torch.rand(2, 3, 4, 32, 32), GRID).reshape(2, 8, 512, 3)
    assert target.mean(2).abs().max() < 1e-5
    assert (target.var(2, unbiased=True) - 1).abs().max() < 1e-4


def test_the_variance_is_the_unbiased_one() -> None:
    patches = patchify(torch.rand(1, 3, 4, 32, 32), GRID)
    _, std = token_statistics(patches)
    wanted = patches[0, 0, :, 0].double().std(correction=1) + 1e-6
    assert abs(float(std[0, 0, 0, 0]) - float(wanted)) < 1e-6


def test_undoing_the_normalisation_gives_the_image_back() -> None:
    frames = torch.rand(1, 3, 4, 32, 32)
    mean, std = token_statistics(patchify(frames, GRID))
    target = normalized_pixels(frames, GRID).reshape(1, 8, 512, 3)
    assert torch.allclose(unpatchify((target * std + mean).flatten(2), GRID), frames, atol=1e-6)


def test_a_flat_token_has_the_target_zero() -> None:
    assert normalized_pixels(torch.full((1, 3, 4, 32, 32), 0.3), GRID).abs().max() < 0.05


def test_a_clips_loss_is_its_own_mean() -> None:
    predicted, wanted = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    wanted[1, 0, 0] = 6.0
    assert mean_squared(predicted, wanted).tolist() == [0.0, 3.0]
