"""Names of weights: what one convention calls a tensor, the others find again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from system.config import ModelSection
from system.core.clip import token_grid
from system.errors import WeightsError
from system.methods import METHODS
from system.models.blocks import sinusoid
from system.models.decoders import PixelModel
from system.models.fit import fit, take
from system.models.sizes import Shape
from system.models.weights import Sizes, pixel_names, sizes_of, to_hugging_face, to_ours

GRID = token_grid(4, 32, 2, 16)
State = dict[str, Tensor]


def model(depth: int = 2, width: int = 48, decoder_depth: int = 1) -> PixelModel:
    """A small model whose every number differs."""
    torch.manual_seed(depth)
    made = PixelModel(GRID, Shape(width, depth, 3), Shape(24, decoder_depth, 3))
    with torch.no_grad():
        for param in made.parameters():
            param.add_(0.02 * torch.randn_like(param))
    return made


def state(**sizes: int) -> State:
    return dict(model(**sizes).state_dict())


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def fine_tuned(ours: State) -> State:
    """As the released fine-tuning names an encoder: without prefix and last norm, with a head."""
    bare = {name.removeprefix("encoder."): value for name, value in ours.items() if name.startswith("encoder.")}
    kept = {name: value for name, value in bare.items() if not name.startswith("norm.")}
    return kept | {"fc_norm.weight": torch.ones(48), "head.weight": torch.ones(7, 48)}


WRAPPED: dict[str, Callable[[State], State]] = {
    "as released": lambda ours: ours,
    "compiled": lambda ours: {f"_orig_mod.{name}": value for name, value in ours.items()},
    "data parallel and compiled": lambda ours: {f"module._orig_mod.{name}": value for name, value in ours.items()},
    "compiled encoder": lambda ours: {
        name.replace("encoder.", "encoder._orig_mod.") if name.startswith("encoder.") else name: value
        for name, value in ours.items()
    },
    "ordered": lambda ours: OrderedDict(reversed(ours.items())),
    "with its position tables": lambda ours: ours | {"encoder.pos_embed": sinusoid(8, 48)[None]},
    "Hugging Face 5": to_hugging_face,
    "Hugging Face 4": lambda ours: to_hugging_face(ours, old_biases=True),
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_all_namings_of_a_pre_trained_model_come_back_to_ours(wrapping: str) -> None:
    ours = state()
    assert same(to_ours(WRAPPED[wrapping](ours), "file"), ours)


def test_a_model_s_own_names_are_those_of_the_list() -> None:
    assert set(state()) == pixel_names(2, 1)


def test_a_bare_encoder_of_hugging_face_gets_its_prefix() -> None:
    ours = {name: value for name, value in state().items() if name.startswith("encoder.")}
    bare = {name.removeprefix("videomae."): value for name, value in to_hugging_face(ours).items()}
    assert same(to_ours(bare, "file"), ours)


def test_a_fine_tuned_encoder_gets_its_prefix_and_keeps_its_head() -> None:
    ours = state()
    found = to_ours(fine_tuned(ours), "file")
    assert {"fc_norm.weight", "head.weight"} < found.keys()
    assert torch.equal(found["encoder.blocks.1.mlp.fc2.bias"], ours["encoder.blocks.1.mlp.fc2.bias"])
    assert "encoder.norm.weight" not in found


def test_half_precision_becomes_float32() -> None:
    found = to_ours({name: value.half() for name, value in state().items()}, "file")
    assert {value.dtype for value in found.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("spoiled", "says"),
    [
        ({"layer4.0.conv1.weight": torch.ones(1)}, r"b\.pth: 1 of 50 names belong to no VideoMAE .* layer4\.0\.conv1"),
        ({"encoder.blocks.last.norm1.weight": torch.ones(1)}, r"1 of 50 names .* encoder\.blocks\.last"),
        ({"module.mask_token": torch.ones(1, 1, 24)}, "mask_token is there twice"),
        ({"mask_token": torch.ones(1, 1, 24, dtype=torch.int64)}, "floating-point numbers, these are not: mask_token"),
        ({"pos_embed": torch.ones(1, 8, 48)}, "pos_embed was learnt"),
    ],
)
def test_what_is_not_a_videomae_is_refused_by_name(spoiled: State, says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        to_ours(state() | spoiled, "b.pth")


def test_sizes_follow_from_shapes() -> None:
    assert sizes_of(state(), "file") == Sizes(48, 2, 2, 16, 24, 1)
    assert sizes_of(to_ours(fine_tuned(state()), "file"), "file").decoder_depth is None
    with pytest.raises(WeightsError, match="holds no encoder of ours"):
        sizes_of({"mask_token": torch.ones(1)}, "file")


def test_a_model_takes_all_of_its_own() -> None:
    target, wanted = model(), {name: value + 1 for name, value in state().items()}
    found = fit(target.state_dict(), wanted, "file")
    take(target, found)
    assert (found.fresh, found.unused) == ((), ())
    assert same(dict(target.state_dict()), wanted)


class TwoHeads(nn.Module):
    """A model with a part that VideoMAE does not have, and without its mask token."""

    def __init__(self) -> None:
        super().__init__()
        inner = model()
        self.encoder, self.decoder = inner.encoder, inner.decoder
        self.encoder_to_decoder = inner.encoder_to_decoder
        self.decoder.add_module("motion_head", nn.Linear(24, 5))


def test_parts_that_one_side_does_not_have_stay_and_are_told() -> None:
    target, theirs = TwoHeads(), {name: value + 1 for name, value in state().items()}
    before = target.state_dict()["decoder.motion_head.weight"].clone()
    found = fit(target.state_dict(), theirs, "file")
    take(target, found)
    assert (found.fresh, found.unused) == (("decoder.motion_head",), ("mask_token",))
    assert "drawn anew, since the file has none: decoder.motion_head; not used by this method: mask_token" in str(found)
    after = target.state_dict()
    assert torch.equal(after["decoder.motion_head.weight"], before)
    assert torch.equal(after["decoder.head.weight"], theirs["decoder.head.weight"])


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        (state(width=96), r"encoder.blocks.0.attn.proj.bias is \[96\] in the file and \[48\] in the model"),
        (state(depth=3), "not in the model: encoder.blocks.2.attn.proj.bias, .* and 9 more"),
        (state(depth=1), "not in the file: encoder.blocks.1.attn.proj.bias"),
        (state(decoder_depth=2), r"(?s)not in the model: decoder.blocks.1.*the encoder fits.*--encoder-only"),
        (to_ours(fine_tuned(state()), "x"), r"(?s)not in the file: encoder.norm.*fine-tuned model has no encoder.norm"),
        ({"mask_token": torch.ones(1)}, "holds no encoder of ours"),
        ({name: value for name, value in state().items() if "qkv" not in name}, "not in the file: .*qkv.weight"),
    ],
)
def test_another_model_is_refused_whole_and_by_its_names(theirs: State, says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        fit(state(), theirs, "file")


def test_an_encoder_that_does_not_fit_is_not_said_to_though_other_names_come_first() -> None:
    with pytest.raises(WeightsError, match=r"not in the model: decoder\.blocks\.1.* more") as caught:
        fit(state(), state(depth=3, decoder_depth=2), "file")
    assert "the encoder fits" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_s_encoder_takes_a_released_encoder(method: str) -> None:
    section = ModelSection(width=48, depth=2, heads=3, decoder_width=24, decoder_depth=1, decoder_heads=3)
    options = METHODS[method].options(name=method)
    with torch.device("meta"):
        built = METHODS[method].build(section, GRID, options)
    found = fit(built.state_dict(), state(), "file")
    assert sum(name.startswith("encoder.") for name in found.take) == len([n for n in state() if "encoder." in n])
