"""Fine-tuning as a record: what it costs, what it trains, and how fast."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from system.config import ModelSection
from system.core.clip import token_grid
from system.methods.classify import CLASSIFY, ClassifyOptions
from system.recipe import Recipe, recipe_from
from system.train.batch import MicroBatch
from system.train.judging import build_model, judge

GRID = token_grid(4, 32, 2, 16)
MODEL = ModelSection(width=48, depth=2, heads=3)


def recipe(**options: object) -> Recipe:
    return recipe_from(
        {
            "data": {"uri": "synthetic://moving", "num_frames": 4, "size": 32},
            "model": MODEL.model_dump(),
            "method": {"name": "classify", "classes": 3, **options},
            "train": {"global_batch": 8, "steps": 1},
            "engine": {"precision": "fp32"},
        },
        "here",
    )


def batch(given: Recipe, clips: int = 8) -> MicroBatch:
    """Clips of which a corner is bright in the first, the second or the third channel: that is their class."""
    draw = torch.Generator().manual_seed(3)
    label = torch.arange(clips) % 3
    frames = 0.2 * torch.rand(clips, 3, 4, 32, 32, generator=draw)
    frames[torch.arange(clips), label, :, :16, :16] += 0.8
    tokens = torch.arange(given.grid.tokens).expand(clips, -1)
    labels = {"label": label, "other": label, "share": torch.ones(clips)}
    drawn = torch.rand(clips, given.record.num_draws(given.method, given.model), generator=draw)
    return MicroBatch(frames, tokens, tokens[:, :0], torch.ones(clips), labels=labels, draws=drawn)


def test_the_stated_cost_is_that_of_the_forward_pass() -> None:
    """Against torch's own count, attention included."""
    module, frames = CLASSIFY.build(MODEL, GRID, ClassifyOptions(classes=3)), torch.rand(1, 3, 4, 32, 32)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(frames)
    assert CLASSIFY.flops(MODEL, GRID, ClassifyOptions(classes=3)) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_a_clip_of_a_vit_b_costs_the_180_billion_multiply_adds_that_are_published() -> None:
    flops = CLASSIFY.flops(ModelSection(size="base"), token_grid(16, 224, 2, 16), ClassifyOptions(classes=400))
    assert flops / 2 == pytest.approx(180e9, rel=0.005)


def test_nothing_is_hidden_and_a_clip_whose_classes_are_not_known_yet_has_no_model() -> None:
    assert CLASSIFY.num_visible(ClassifyOptions(), GRID) == GRID.tokens
    with pytest.raises(ValueError, match=r"method\.classes is known once the labels are read"):
        CLASSIFY.build(MODEL, GRID, ClassifyOptions())


def test_thirty_steps_of_fine_tuning_tell_three_classes_apart() -> None:
    given = recipe(smoothing=0.0)
    module, data = build_model(given, torch.device("cpu")).train(), batch(given)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for _ in range(30):
        loss = judge(given, module, data).losses["label"].mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert data.labels is not None
    assert torch.equal(module.eval()(data.frames)["logits"].argmax(1), data.labels["label"])
