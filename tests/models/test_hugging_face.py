"""What of our models has a place in Hugging Face's, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from system.errors import WeightsError
from system.models.decoders import PixelMotionModel
from system.models.hugging_face import Model, classification, preprocessor, pretraining
from system.models.products import Linear
from system.models.regressor import RegressorModel
from system.models.sizes import Shape
from tests.models.test_weights import GRID, model

ENCODER, DECODER = Shape(48, 2, 3), Shape(24, 1, 3)


def motion_model(*, independent: bool = False, learned_positions: bool = False) -> nn.Module:
    return PixelMotionModel(GRID, ENCODER, DECODER, 5, independent=independent, learned_positions=learned_positions)


def given(module: nn.Module) -> Model:
    return Model(module.state_dict(), GRID, ENCODER, DECODER)


def test_a_pixel_model_leaves_nothing_behind() -> None:
    exported = pretraining(given(model()), normalize_target=False)
    assert exported.left == ()
    assert exported.config["use_mean_pooling"] is False
    assert exported.config["norm_pix_loss"] is False
    assert len(exported.tensors) == 49 + 2 * 3  # three matrices for each of three qkv


@pytest.mark.parametrize(("independent", "part"), [(False, "motion_head"), (True, "motion_decoder")])
def test_a_second_head_is_left_behind_and_told(*, independent: bool, part: str) -> None:
    exported = pretraining(given(motion_model(independent=independent)), normalize_target=True)
    assert exported.tensors.keys() == pretraining(given(model()), normalize_target=True).tensors.keys()
    assert {name.split(".")[0] for name in exported.left} == {part}


def test_a_model_without_pixel_decoder_has_an_encoder_to_give_and_no_more() -> None:
    regressor = given(RegressorModel(GRID, ENCODER, DECODER, regressor_depth=1, values={"codes": 8, "motion": 4}))
    with pytest.raises(WeightsError, match=r"this model is not: it has no decoder.blocks.0.*--format tubelet"):
        pretraining(regressor, normalize_target=True)
    exported = classification(regressor, "abc")
    assert exported.tensors.keys() == classification(given(model()), "abc").tensors.keys()
    assert {"encoder.norm.weight", "encoder.norm.bias"} < set(exported.left)


def test_learnt_positions_are_not_dropped_silently() -> None:
    learnt = given(motion_model(learned_positions=True))
    with pytest.raises(WeightsError, match=r"has learnt its own: decoder_positions, encoder\.positions"):
        pretraining(learnt, normalize_target=True)
    with pytest.raises(WeightsError, match="has learnt its own"):
        classification(learnt, "abc")


def test_a_head_of_other_values_is_no_pixel_decoder() -> None:
    other = model()
    other.decoder.head = Linear(24, 7)
    with pytest.raises(WeightsError, match=r"decoder.head.weight is not \(1536, 24\)"):
        pretraining(given(other), normalize_target=True)


def test_a_fresh_head_is_the_same_in_every_export() -> None:
    exported = classification(given(model()), "abcde")
    assert torch.equal(exported.tensors["classifier.weight"], torch.zeros(5, 48))
    assert torch.equal(exported.tensors["fc_norm.weight"], torch.ones(48))
    assert exported.config["id2label"] == {str(number): name for number, name in enumerate("abcde")}


def test_frames_are_cut_to_the_size_of_training() -> None:
    assert preprocessor(112)["crop_size"] == {"height": 112, "width": 112}
