"""Our encoder and decoder compute what Hugging Face's VideoMAE computes, with the same random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from system.benchmark.conventional_step import conventional_model
from system.config import ModelSection
from system.core.clip import token_grid
from system.core.losses import mean_squared
from system.core.masks import tube_visible
from system.core.targets import IMAGENET_MEAN, IMAGENET_STD, normalized_pixels
from system.models.blocks import gather_tokens
from system.models.decoders import PixelModel
from system.models.sizes import shapes
from system.models.weights import to_hugging_face
from system.train.batch import split_tokens

GRID = token_grid(16, 64, 2, 16)
MODEL = ModelSection(size="tiny", depth=3, decoder_depth=2)


@pytest.fixture(scope="module")
def pair() -> tuple[PixelModel, torch.nn.Module]:
    torch.manual_seed(0)
    encoder, decoder = shapes(MODEL)
    ours = PixelModel(GRID, encoder, decoder).eval()
    with torch.no_grad():
        for param in ours.parameters():
            param.add_(0.02 * torch.randn_like(param))  # biases too
    theirs = conventional_model(GRID, encoder, decoder)
    theirs.train(False)
    missing, unexpected = theirs.load_state_dict(to_hugging_face(ours.state_dict()), strict=False)
    assert not missing
    assert not unexpected
    return ours, theirs


def test_predictions_and_loss_equal_hugging_faces(pair: tuple[PixelModel, torch.nn.Module]) -> None:
    ours, theirs = pair
    frames = torch.rand(2, 3, 16, 64, 64)
    noise = np.random.default_rng(0).random((2, GRID.slots, GRID.places), np.float32)
    visible = tube_visible(noise, GRID, 0.75)
    shown, hidden = (torch.from_numpy(index) for index in split_tokens(visible))
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        predicted = ours(frames, shown, hidden)["pixels"]
        wanted = gather_tokens(normalized_pixels(frames, GRID), hidden)
        loss = mean_squared(predicted, wanted).mean()
        out = theirs(((frames - mean) / std).transpose(1, 2), bool_masked_pos=torch.from_numpy(~visible))
    assert torch.allclose(predicted, out.logits, atol=1e-5)
    assert float(loss) == pytest.approx(float(out.loss), abs=1e-5)
