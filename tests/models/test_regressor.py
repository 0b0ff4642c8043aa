"""The regressor predicts hidden latents from visible ones, and the decoders know nothing else (CAE's design)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from system.core.clip import token_grid
from system.models.regressor import RegressorModel
from system.models.sizes import Shape

GRID = token_grid(4, 64, 2, 16)
SHOWN = torch.arange(0, 32, 4)[None]
HIDDEN = torch.tensor([[token for token in range(32) if token % 4]])


def model(**values: Any) -> RegressorModel:
    torch.manual_seed(0)
    sizes = {"codes": 10, "motion": 6}
    made = RegressorModel(GRID, Shape(48, 2, 3), Shape(24, 1, 3), regressor_depth=2, values=sizes, **values)
    return made.eval()


def frames() -> Tensor:
    return torch.rand(1, 3, 4, 64, 64, generator=torch.Generator().manual_seed(1))


def without_hidden_content(clip: Tensor) -> Tensor:
    """The same clip with other pixels in every hidden tubelet."""
    cut = clip.reshape(1, 3, 2, 2, 4, 16, 4, 16).permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(1, 32, 3, 2, 16, 16).clone()
    cut[:, HIDDEN[0]] = torch.rand(1, HIDDEN.shape[1], 3, 2, 16, 16, generator=torch.Generator().manual_seed(2))
    return cut.reshape(1, 2, 4, 4, 3, 2, 16, 16).permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(1, 3, 4, 64, 64)


@pytest.mark.parametrize("decode_all", [False, True])
@pytest.mark.parametrize("visible_only", [False, True])
def test_no_prediction_depends_on_what_is_hidden(decode_all: bool, visible_only: bool) -> None:
    module, clip = model(decode_all=decode_all, visible_only=visible_only), frames()
    one, other = (module(each, SHOWN, HIDDEN) for each in (clip, without_hidden_content(clip)))
    assert set(one) == {"codes", "motion"}
    for name, prediction in one.items():
        assert torch.equal(prediction, other[name])


def test_every_prediction_depends_on_its_place_and_on_what_is_visible() -> None:
    module, clip = model(), frames()
    out = module(clip, SHOWN, HIDDEN)["codes"]
    assert (out[0, 0] - out[0, 1]).abs().max() > 1e-4
    assert (out - module(1 - clip, SHOWN, HIDDEN)["codes"]).abs().max() > 1e-4


def test_the_order_of_the_predicted_tokens_does_not_matter() -> None:
    module, clip = model(), frames()
    order = torch.randperm(HIDDEN.shape[1], generator=torch.Generator().manual_seed(3))
    out = module(clip, SHOWN, HIDDEN)["motion"]
    assert torch.allclose(module(clip, SHOWN, HIDDEN[:, order])["motion"], out[:, order], atol=1e-5)


def test_the_latents_to_align_with_are_the_encoders_and_carry_no_gradient() -> None:
    module, clip = model(aligned=True), frames()
    out = module(clip, SHOWN, HIDDEN)
    assert torch.equal(out["encoded"], module.encoder(clip, HIDDEN))
    assert out["regressed"].shape == out["encoded"].shape == (1, HIDDEN.shape[1], 48)
    assert out["regressed"].requires_grad and not out["encoded"].requires_grad


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for on in (False, True):
        module = model()
        module.regressor.checkpointing = on
        module(frames(), SHOWN, HIDDEN)["codes"].square().mean().backward()
        grads = [param.grad.flatten() for param in module.parameters() if param.grad is not None]
        gradients.append(torch.cat(grads))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
