"""The classifier: what is left out is what the draws say, and nothing else is random."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from system.config import ModelSection
from system.core.clip import token_grid
from system.core.losses import mixed_cross_entropy
from system.methods.classify import CLASSIFY, ClassifyOptions
from system.models.blocks import Block
from system.models.classifier import Classifier, Drops
from system.models.decoders import set_activation_checkpointing
from system.models.sizes import Shape

GRID = token_grid(4, 32, 2, 16)
SHAPE = Shape(24, 3, 2)
CLASSES = 5


def built(path: float = 0.0, head: float = 0.0) -> Classifier:
    """A classifier whose head does something, so that its logits differ."""
    torch.manual_seed(0)
    model = Classifier(GRID, SHAPE, CLASSES, Drops(path, head))
    torch.nn.init.normal_(model.head.weight)
    return model


def clips(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def draws(count: int, numbers: int) -> Tensor:
    return torch.rand(count, numbers, generator=torch.Generator().manual_seed(2))


def logits(model: Classifier, frames: Tensor, drawn: Tensor | None = None) -> Tensor:
    return model(frames, drawn)["logits"].detach()  # type: ignore[no-any-return]


def test_the_head_is_a_mean_a_fresh_norm_and_a_linear_layer_without_the_encoder_s_last_norm() -> None:
    model, frames = built(), clips()
    everything = torch.arange(GRID.tokens).expand(len(frames), -1)
    x = model.encoder.patch_embed(frames, everything) + model.encoder.positions[everything]
    pooled = model.encoder.blocks.run(x).mean(1)
    wanted = model.head(torch.nn.functional.layer_norm(pooled, (24,), eps=1e-6))
    assert torch.allclose(logits(model, frames), wanted, atol=1e-6)
    assert not any(name.startswith("encoder.norm") for name in model.state_dict())


def test_a_new_head_says_next_to_nothing() -> None:
    model = Classifier(GRID, SHAPE, 400)
    assert 0 < float(model.head.weight.detach().abs().max()) < 1e-4
    assert not model.head.bias.any()


def test_a_classifier_from_scratch_begins_as_pre_training_does() -> None:
    found = dict(Classifier(GRID, SHAPE, CLASSES).named_parameters())
    zeros = [name for name in found if name.endswith("bias") and "patch_embed" not in name]
    assert len(zeros) > SHAPE.depth
    assert not [name for name in zeros if found[name].any()]
    weight = found["encoder.blocks.0.mlp.fc1.weight"].detach()
    limit = (6 / sum(weight.shape)) ** 0.5  # Xavier: fan-in and fan-out
    assert 0.98 * limit < float(weight.abs().max()) <= limit


def test_the_last_blocks_are_left_out_most_and_what_stays_is_worth_more() -> None:
    model = built(path=0.4)
    low, high = torch.zeros(1, 6), torch.full((1, 6), 0.9)
    # Rates 0, .2 and .4: a draw below the rate leaves the branch out, one above it makes 1 / (1 - rate) of it.
    assert torch.allclose(model._kept(low)[0], torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    assert torch.allclose(model._kept(high)[0], torch.tensor([[1.0, 1.0], [1.25, 1.25], [1 / 0.6, 1 / 0.6]]))


def test_in_the_mean_nothing_is_left_out() -> None:
    factors = built(path=0.4)._kept(draws(40_000, 6)).mean(0)
    assert torch.allclose(factors, torch.ones(3, 2), atol=0.02)


def test_a_branch_that_is_left_out_adds_nothing() -> None:
    model, frames = built(path=0.4), clips(1)
    out = torch.full((1, 6), 0.9)
    out[0, 3:] = 0.0  # the second block's MLP and all of the third
    blocks, everything = model.encoder.blocks, torch.arange(GRID.tokens)[None]
    x = model.encoder.patch_embed(frames, everything) + model.encoder.positions[everything]
    first, second = blocks[0], blocks[1]
    assert isinstance(second, Block)
    x = first(x)
    x = x + 1.25 * second.attn(second.norm1(x))
    wanted = model.head(model.fc_norm(x.mean(1)))
    assert torch.allclose(logits(model, frames, out), wanted, atol=1e-6)


def test_dropout_before_the_head_keeps_the_inputs_whose_draw_is_above_its_rate() -> None:
    model, frames, drawn = built(head=0.5), clips(), draws(4, 24)
    seen: list[Tensor] = []
    model.fc_norm.register_forward_hook(lambda _module, _inputs, out: seen.append(out.detach()))
    found = logits(model, frames, drawn)
    assert torch.allclose(found, model.head(seen[0] * (drawn >= 0.5) * 2), atol=1e-6)
    assert not torch.allclose(found, logits(model, frames))


def test_draws_of_branches_come_before_those_of_the_head() -> None:
    both, frames = built(path=0.4, head=0.5), clips()
    drawn = draws(4, 6 + 24)
    drawn[:, 6:] = 0.9  # no input of the head is left out: all count double
    double = built(path=0.4)
    double.head.weight.data *= 2
    assert torch.allclose(logits(both, frames, drawn), logits(double, frames, drawn[:, :6]), atol=1e-5)


def test_without_draws_a_model_in_training_computes_what_it_does_in_a_test() -> None:
    model, frames = built(path=0.4, head=0.5), clips()
    training = logits(model.train(), frames)
    assert torch.equal(training, logits(model.eval(), frames))
    assert torch.equal(training, logits(built(), frames))


def test_a_clip_s_output_is_its_own_whatever_micro_batch_it_is_in() -> None:
    model, frames, drawn = built(path=0.4, head=0.5).train(), clips(), draws(4, 30)
    whole = logits(model, frames, drawn)
    for parts in ([[0], [1], [2], [3]], [[3, 0], [2, 1]]):
        for part in parts:
            assert torch.allclose(logits(model, frames[part], drawn[part]), whole[part], atol=1e-6)


def test_activations_that_are_computed_again_give_the_same_gradient() -> None:
    gradients = []
    for again in (False, True):
        model = built(path=0.4, head=0.5)
        set_activation_checkpointing(model, again)
        assert model.encoder.blocks.checkpointing is again
        torch.autograd.backward(model(clips(), draws(4, 30))["logits"].square().sum())
        gradients.append([param.grad for param in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one is not None and other is not None
        assert torch.allclose(one, other, atol=1e-6)


def test_the_record_asks_for_as_many_draws_as_the_model_takes() -> None:
    section = ModelSection(width=24, depth=3, heads=2)
    for options, wanted in (
        ({"drop_path": 0.1, "head_dropout": 0.5}, 30),
        ({"drop_path": 0.1}, 6),
        ({"drop_path": 0.0, "head_dropout": 0.5}, 24),
        ({"drop_path": 0.0}, 0),
    ):
        given = ClassifyOptions.model_validate({"classes": CLASSES, **options})
        count = CLASSIFY.num_draws(given, section)
        assert count == wanted
        assert CLASSIFY.build(section, GRID, given)(clips(), draws(4, count))["logits"].shape == (4, CLASSES)


def test_a_mixed_smoothed_label_is_worked_out_by_hand() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125]]))
    # .3 of class 0 and .7 of class 1, smoothed by .2 over 4 classes: .8 * (.3, .7, 0, 0) + .05 = (.29, .61, .05, .05).
    found = mixed_cross_entropy(scores, torch.tensor([0]), torch.tensor([1]), torch.tensor([0.3]), 0.2)
    wanted = -(0.29 * np.log(0.5) + 0.61 * np.log(0.25) + 2 * 0.05 * np.log(0.125))
    assert float(found) == pytest.approx(wanted, rel=1e-6)
