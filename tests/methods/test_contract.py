"""What every method is held to, whatever it is."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from system.config import ModelSection
from system.core.clip import token_grid
from system.core.masks import Noise
from system.methods import METHODS
from system.methods.base import Method
from system.models.blocks import gather_tokens
from system.train.batch import split_tokens

GRID = token_grid(4, 48, 2, 16)
MODEL = ModelSection(size="tiny", depth=2, decoder_depth=1, width=48, heads=3, decoder_width=48, decoder_heads=3)

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def options(method: Method, **values: Any) -> Any:
    return method.options.model_validate({"name": method.name, "mask_ratio": 0.5, **values})


def draws(clips: int) -> Noise:
    return np.random.default_rng(1).random((clips, GRID.slots, GRID.places), np.float32)


def motion(method: Method, clips: int) -> Tensor | None:
    pairs = method.pairs(options(method), GRID.num_frames)
    if not pairs:
        return None
    generator = torch.Generator().manual_seed(2)
    return 4 * torch.randn(clips, len(pairs), GRID.height, GRID.width, 2, generator=generator)


def batch(method: Method, clips: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Squares that move, with the method's masks."""
    frames = torch.rand(clips, 3, 1, 1, 1).expand(-1, -1, 4, 48, 48).clone() / 2
    for clip in range(clips):
        for time in range(4):
            left = 4 * clip % 24 + 4 * time
            frames[clip, :, time, 8:28, left : left + 12] += 0.4
    visible = method.mask(draws(clips), motion(method, clips), GRID, options(method))
    shown, hidden = split_tokens(visible)
    return frames, torch.from_numpy(shown), torch.from_numpy(hidden)


def losses(method: Method, module: torch.nn.Module, data: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    frames, shown, hidden = data
    wanted = {
        name: gather_tokens(target(frames, GRID, options(method)), hidden) for name, target in method.targets.items()
    }
    parts = method.loss(module(frames, shown, hidden), wanted, options(method))
    return torch.stack(list(parts.values())).sum(0)


def build(method: Method) -> torch.nn.Module:
    torch.manual_seed(0)
    return method.build(MODEL, GRID, options(method))


@every_method
def test_a_method_stands_under_its_own_name(method: Method) -> None:
    assert METHODS[method.name] is method
    assert method.options.model_fields["name"].default == method.name
    assert method.source.startswith("arXiv:")
    assert method.needs_motion == bool(method.pairs(options(method), 16))


@every_method
def test_the_same_draws_make_the_same_mask(method: Method) -> None:
    first, second = (method.mask(draws(3), motion(method, 3), GRID, options(method)) for _ in range(2))
    assert (first == second).all()
    assert first.dtype == np.bool_
    assert first.shape == (3, GRID.tokens)


@every_method
def test_every_clip_sees_as_many_tokens_as_the_method_says(method: Method) -> None:
    visible = method.mask(draws(5), motion(method, 5), GRID, options(method))
    assert set(visible.sum(1)) == {method.num_visible(options(method), GRID)}


@every_method
def test_targets_have_the_grids_tokens_and_predictions_cover_the_hidden_ones(method: Method) -> None:
    frames, shown, hidden = batch(method, 2)
    predicted = build(method)(frames, shown, hidden)
    assert set(predicted) == set(method.targets)
    for name, target in method.targets.items():
        wanted = target(frames, GRID, options(method))
        assert wanted.shape[:2] == (2, GRID.tokens)
        assert predicted[name].shape == (2, hidden.shape[1], wanted.shape[2])


@every_method
def test_a_loss_is_one_number_a_clip_and_ignores_what_the_encoder_saw(method: Method) -> None:
    module, data = build(method), batch(method, 3)
    per_clip = losses(method, module, data)
    assert per_clip.shape == (3,)
    alone = losses(method, module, tuple(part[1:2] for part in data))  # type: ignore[arg-type]
    assert torch.allclose(per_clip[1], alone[0], atol=1e-6)


@every_method
def test_the_gradient_reaches_every_trainable_parameter(method: Method) -> None:
    module = build(method)
    torch.autograd.backward(losses(method, module, batch(method)).mean())
    without = [name for name, param in module.named_parameters() if param.grad is None or not param.grad.abs().sum()]
    assert not without


@every_method
@pytest.mark.parametrize("cut", [2, 8])
def test_the_gradient_does_not_depend_on_how_a_batch_is_cut(method: Method, cut: int) -> None:
    gradients = []
    for pieces in (1, cut):
        module, data = build(method), batch(method)
        for part in range(pieces):
            some = slice(part * 8 // pieces, (part + 1) * 8 // pieces)
            share = losses(method, module, tuple(each[some] for each in data)).sum() / 8  # type: ignore[arg-type]
            torch.autograd.backward(share)
        gradients.append(torch.cat([param.grad.flatten() for param in module.parameters() if param.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


@every_method
def test_twenty_steps_on_moving_squares_lower_the_loss(method: Method) -> None:
    module, data = build(method), batch(method)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    seen = []
    for _ in range(20):
        loss = losses(method, module, data).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.9 * seen[0]


@every_method
def test_what_a_method_imports_when_it_runs_exists(method: Method) -> None:
    functions = [method.pairs, method.num_visible, method.mask, method.build, method.loss, *method.targets.values()]
    for function in functions:
        module = inspect.getmodule(function)
        assert module is not None
        for name in function.__code__.co_names:
            holder = getattr(module, name, None)
            for attribute in function.__code__.co_names if inspect.ismodule(holder) else ():
                if re.search(rf"\b{name}\.{attribute}\b", inspect.getsource(function.__code__)):
                    assert hasattr(holder, attribute), f"{module.__name__}: {name}.{attribute}"
