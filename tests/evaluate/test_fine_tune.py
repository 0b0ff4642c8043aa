"""Fine-tuning: that it learns, what it leaves alone, and the learning rates of the layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from system.core.clip import token_grid
from system.evaluate.fine_tune import Classifier, FineTuneOptions, accuracy, decayed_groups, fine_tune
from system.models.encoder import Encoder
from system.models.sizes import Shape

GRID = token_grid(4, 32, 2, 16)


def encoder(depth: int = 2) -> Encoder:
    torch.manual_seed(0)
    return Encoder(GRID, Shape(48, depth, 3))


def bright_or_dark(count: int, seed: int = 0) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], Tensor]:
    """Noise whose label is whether the clip gets brighter or darker over time."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    slope = np.where(labels == 1, 25, -25)[:, None] * (np.arange(4) - 1.5)
    frames = draw.integers(90, 166, (count, 4, 32, 32, 3)) + slope[..., None, None, None]
    return frames.astype(np.uint8), torch.from_numpy(labels)


def test_a_change_over_time_is_learned() -> None:
    frames, labels = bright_or_dark(64)
    options = FineTuneOptions(epochs=10, batch=16, lr=2e-3, layer_decay=1.0)
    model, losses = fine_tune(encoder(), frames, labels, GRID, 2, options, seed=0)
    assert losses[0] > 0.6  # a head that starts near zero says nothing yet: ln 2
    assert accuracy(model, *bright_or_dark(64, seed=1)) > 0.95


def test_the_encoder_that_is_given_is_not_changed() -> None:
    given = encoder()
    before = {name: value.clone() for name, value in given.state_dict().items()}
    fine_tune(given, *bright_or_dark(16), GRID, 2, FineTuneOptions(epochs=1, batch=8), seed=0)
    assert isinstance(given.norm, nn.LayerNorm)
    assert all(torch.equal(before[name], value) for name, value in given.state_dict().items())


def test_the_same_seed_gives_the_same_losses() -> None:
    runs = [
        fine_tune(encoder(), *bright_or_dark(16), GRID, 2, FineTuneOptions(epochs=2, batch=8), seed=seed)[1]
        for seed in (3, 3, 4)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_each_layer_learns_more_slowly_than_the_one_above_it() -> None:
    model = Classifier(encoder(depth=3), GRID, 2)
    groups = decayed_groups(model, FineTuneOptions(layer_decay=0.5))
    scale = {id(param): group["lr_scale"] for group in groups for param in group["params"]}
    of = {name: scale[id(param)] for name, param in model.named_parameters()}
    assert of["head.weight"] == of["norm.weight"] == 1.0
    assert [of[f"encoder.blocks.{block}.attn.proj.weight"] for block in (2, 1, 0)] == [0.5, 0.25, 0.125]
    assert of["encoder.patch_embed.proj.weight"] == 0.0625
    assert len(scale) == len(of)


def test_biases_and_norms_are_not_decayed() -> None:
    model = Classifier(encoder(), GRID, 2)
    for group in decayed_groups(model, FineTuneOptions(weight_decay=0.1)):
        for param in group["params"]:
            assert group["weight_decay"] == (0.1 if param.ndim > 1 else 0.0)


def test_the_encoders_own_norm_is_left_out() -> None:
    model = Classifier(encoder(), GRID, 2)
    assert not [name for name, _ in model.named_parameters() if name.startswith("encoder.norm")]


def test_few_steps_are_the_first_ones_of_many() -> None:
    data, few = bright_or_dark(16), FineTuneOptions(epochs=4, batch=8, steps=2)
    assert (
        fine_tune(encoder(), *data, GRID, 2, few, seed=0)[1]
        == fine_tune(encoder(), *data, GRID, 2, FineTuneOptions(epochs=4, batch=8), seed=0)[1][:2]
    )
