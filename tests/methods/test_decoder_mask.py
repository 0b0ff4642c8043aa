"""VideoMAE V2's dual masking: what is decoded, and what counts in the loss (arXiv:2303.16727, section 3.1).

The numbers are those of the released masking generator and pre-training engine: 784 of 1,568 positions are decoded,
mask tokens stand at all of them, and the loss is the mean over those that the encoder did not see.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from system.config import ModelSection
from system.core.clip import token_grid
from system.methods import METHODS
from system.methods.base import Clips, Method
from system.methods.videomae import VIDEOMAE, VideoMAEOptions
from system.models.blocks import gather_tokens
from system.train.batch import predicted_tokens, split_tokens

GRID = token_grid(16, 224, 2, 16)
DUAL = VideoMAEOptions(decoder_mask="running_cell")
PIXEL_METHODS = [method for method in METHODS.values() if "pixels" in method.targets]


def block(clips: int = 4) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0).random((clips, GRID.slots, GRID.places), np.float32)
    return {
        "visible": VIDEOMAE.mask(noise, None, GRID, DUAL),
        "decoded": VIDEOMAE.decoded(np.arange(clips), GRID, DUAL),
    }


@pytest.mark.parametrize("method", PIXEL_METHODS, ids=lambda method: method.name)
def test_every_method_with_pixels_decodes_784_of_1568_positions(method: Method) -> None:
    chosen = method.options.model_validate({"decoder_mask": "running_cell"})
    decoded = method.decoded(np.arange(6), GRID, chosen)
    assert (decoded.sum(1) == 784).all()
    assert method.num_decoded(chosen, GRID) == 784


def test_every_place_is_decoded_in_half_of_the_slots_and_clips_differ_by_their_phase() -> None:
    decoded = VIDEOMAE.decoded(np.arange(8), GRID, DUAL).reshape(8, 8, 14, 14)
    assert (decoded.sum(1) == 4).all()
    assert (decoded[:, 1:] != decoded[:, :-1]).mean() == 0.5  # a queue that turns by one changes two of four places
    assert np.array_equal(decoded[:4], decoded[4:])
    assert len({each.tobytes() for each in decoded}) == 4


def test_visible_positions_are_decoded_too_and_do_not_count() -> None:
    made = block()
    _, hidden = split_tokens(made["visible"])
    chosen, counted = predicted_tokens(made, hidden)
    assert counted is not None
    assert chosen.shape == (4, 784)
    both = made["visible"] & made["decoded"]
    assert ((counted == 0).sum(1) == both.sum(1)).all()
    assert both.sum(1).min() > 40  # about half of the 160 visible ones
    for clip in range(4):
        count = np.flatnonzero(made["decoded"][clip] & ~made["visible"][clip])
        assert np.array_equal(chosen[clip][counted[clip] == 1], count)


def test_the_loss_is_the_mean_over_decoded_positions_that_the_encoder_did_not_see() -> None:
    made = block(2)
    chosen, counted = predicted_tokens(made, split_tokens(made["visible"])[1])
    frames = torch.rand(2, 3, 16, 224, 224, generator=torch.Generator().manual_seed(1))
    wanted = gather_tokens(VIDEOMAE.targets["pixels"](Clips(frames), GRID, DUAL), torch.from_numpy(chosen))
    predicted = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2))
    assert counted is not None
    weight = torch.from_numpy(counted)
    loss = VIDEOMAE.loss({"pixels": predicted}, {"pixels": wanted}, weight, DUAL)["pixels"]
    by_hand = torch.stack([((predicted - wanted)[clip][weight[clip] == 1] ** 2).mean() for clip in range(2)])
    assert torch.allclose(loss, by_hand, rtol=1e-5)
    predicted[weight == 0] += 100  # what is predicted for a visible position changes nothing
    assert torch.equal(VIDEOMAE.loss({"pixels": predicted}, {"pixels": wanted}, weight, DUAL)["pixels"], loss)


def test_the_decoder_computes_944_of_1568_tokens() -> None:
    module = VIDEOMAE.build(ModelSection(size="tiny", depth=1, decoder_depth=1), GRID, DUAL)
    made = block(1)
    shown, hidden = split_tokens(made["visible"])
    chosen, _ = predicted_tokens(made, hidden)
    lengths: list[int] = []
    module.get_submodule("decoder.blocks.0").register_forward_hook(
        lambda _m, given, _o: lengths.append(given[0].shape[1])
    )
    module(torch.rand(1, 3, 16, 224, 224), torch.from_numpy(shown), torch.from_numpy(chosen))
    assert lengths == [160 + 784]
