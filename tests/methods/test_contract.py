"""What every method is held to, whatever it is."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from system.config import ModelSection
from system.core.clip import token_grid
from system.core.masks import Noise
from system.methods import METHODS
from system.methods.base import Clips, Method
from system.models.blocks import gather_tokens
from system.models.regressor import RegressorModel
from system.models.tokenizer import Tokenizer, TokenizerConfig, save_tokenizer
from system.train.batch import MicroBatch, predicted_tokens, split_tokens
from system.train.groups import parameter_groups

GRID = token_grid(4, 64, 2, 16)
MODEL = ModelSection(size="tiny", depth=2, decoder_depth=1, width=48, heads=3, decoder_width=48, decoder_heads=3)

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)

# Options that change what a method computes, besides its defaults.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "mam2": [
        {"alignment_weight": 2.0, "code_frames": "both"},
        {"regressor_sees": "visible", "decoders_see": "all", "motion_target": "hog"},
        {"motion_target": "flow", "mask": "random"},
    ],
    "motionmae": [
        {"decoder": "independent", "normalize_motion": False},
        {"neighbour": "raw", "difference": "signed", "positions": "learned"},
        {"differences": "tubelet", "colours": "grey"},
        {"last_frame": "repeat", "mask": "random"},
    ],
}


def _cases() -> list[Any]:
    cases = []
    for name, method in METHODS.items():
        variants: list[dict[str, Any]] = [{}, *VARIANTS.get(name, [])]
        if "decoder_mask" in method.options.model_fields:
            variants.append({"decoder_mask": "running_cell"})
        for values in variants:
            label = "-".join([name, *(f"{key}={value}" for key, value in values.items())])
            cases.append(pytest.param(method, values, id=label))
    return cases


every_case = pytest.mark.parametrize(("method", "values"), _cases())


def options(method: Method, **values: Any) -> Any:
    return method.options.model_validate({"name": method.name, "mask_ratio": 0.5, **values})


def draws(clips: int) -> Noise:
    return np.random.default_rng(1).random((clips, GRID.slots, GRID.places), np.float32)


def motion(method: Method, clips: int, **values: Any) -> Tensor | None:
    pairs = method.pairs(options(method, **values), GRID.num_frames)
    if not pairs:
        return None
    generator = torch.Generator().manual_seed(2)
    return 4 * torch.randn(clips, len(pairs), GRID.height, GRID.width, 2, generator=generator)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run's folder with what its methods fit before training."""
    place = tmp_path_factory.mktemp("run")
    for method in METHODS.values():
        chosen = options(method)
        wanted = method.to_fit(chosen, str(place))
        if wanted is not None:
            config = TokenizerConfig(
                kind="small", num_codes=wanted.num_codes, factor=16, width=8, latent_width=8, code_width=8
            )
            torch.manual_seed(0)
            save_tokenizer(Tokenizer(config), wanted.uri)
    return str(place)


def video(clips: int, num_frames: int) -> Tensor:
    """Squares that move over a plain ground: (B, 3, T, 64, 64) in [0, 1]."""
    frames = torch.rand(clips, 3, 1, 1, 1).expand(-1, -1, num_frames, 64, 64).clone() / 2
    for clip in range(clips):
        for time in range(num_frames):
            left = 4 * clip % 24 + 4 * time
            frames[clip, :, time, 8:28, left : left + 12] += 0.4
    return frames


def batch(method: Method, clips: int = 8, **values: Any) -> MicroBatch:
    """A micro-batch as the stream makes it, with the method's masks."""
    chosen = options(method, **values)
    flow = motion(method, clips, **values)
    block = {"visible": method.mask(draws(clips), flow, GRID, chosen)}
    if method.num_decoded(chosen, GRID) is not None:
        block["decoded"] = method.decoded(np.arange(clips), GRID, chosen)
    shown, hidden = split_tokens(block["visible"])
    predicted, counted = predicted_tokens(block, hidden)
    extra = len(method.extra_frames(chosen, GRID.num_frames, 1))
    frames = video(clips, GRID.num_frames + extra)
    carried = None
    if method.num_carried(chosen, GRID):
        assert flow is not None
        carried = method.carry(flow, GRID, chosen)
    return MicroBatch(
        frames[:, :, : GRID.num_frames],
        torch.from_numpy(shown),
        torch.from_numpy(predicted),
        torch.ones(clips),
        torch.from_numpy(counted) if counted is not None else None,
        frames[:, :, GRID.num_frames :] if extra else None,
        carried,
    )


def part(data: MicroBatch, some: slice) -> MicroBatch:
    values: list[Any] = [getattr(data, each.name) for each in fields(data)]
    cut: list[Any] = [value[some] if value is not None else None for value in values]
    return MicroBatch(*cut)


class Case:
    """A method with some of its options, ready to be judged."""

    def __init__(self, method: Method, folder: str, **values: Any) -> None:
        self.method, self.options = method, options(method, **values)
        self.frozen = method.frozen(self.options, GRID, folder)
        torch.manual_seed(0)
        self.module = method.build(MODEL, GRID, self.options)

    def losses(self, data: MicroBatch) -> Tensor:
        clips = Clips(data.frames, data.extra, data.carried, self.frozen)
        wanted = {
            name: gather_tokens(target(clips, GRID, self.options), data.predicted)
            for name, target in self.method.targets.items()
        }
        predicted = self.module(data.frames, data.shown, data.predicted)
        parts = self.method.loss(predicted, wanted, data.counted, self.options)
        return torch.stack(list(parts.values())).sum(0)


@every_method
def test_a_method_stands_under_its_own_name(method: Method) -> None:
    assert METHODS[method.name] is method
    assert method.options.model_fields["name"].default == method.name
    assert method.source.startswith("arXiv:")


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


@every_case
def test_targets_have_the_grids_tokens_and_predictions_cover_the_wanted_ones(
    method: Method, values: dict[str, Any], folder: str
) -> None:
    case, data = Case(method, folder, **values), batch(method, 2, **values)
    predicted = case.module(data.frames, data.shown, data.predicted)
    assert set(predicted) >= set(method.targets)
    clips = Clips(data.frames, data.extra, data.carried, case.frozen)
    for name, target in method.targets.items():
        wanted = target(clips, GRID, case.options)
        assert wanted.shape[:2] == (2, GRID.tokens)
        assert predicted[name].shape[:2] == (2, data.predicted.shape[1])


@every_case
def test_a_loss_is_one_number_a_clip_whatever_the_other_clips_are(
    method: Method, values: dict[str, Any], folder: str
) -> None:
    case, data = Case(method, folder, **values), batch(method, 3, **values)
    per_clip = case.losses(data)
    assert per_clip.shape == (3,)
    alone = case.losses(part(data, slice(1, 2)))
    assert torch.allclose(per_clip[1], alone[0], atol=1e-5)


@every_case
def test_the_gradient_reaches_every_trainable_parameter(method: Method, values: dict[str, Any], folder: str) -> None:
    case = Case(method, folder, **values)
    torch.autograd.backward(case.losses(batch(method, **values)).mean())
    parameters = case.module.named_parameters()
    without = [name for name, param in parameters if param.grad is None or not param.grad.abs().sum()]
    assert not without


@every_case
@pytest.mark.parametrize("cut", [2, 8])
def test_the_gradient_does_not_depend_on_how_a_batch_is_cut(
    method: Method, values: dict[str, Any], cut: int, folder: str
) -> None:
    gradients = []
    torch.manual_seed(1)
    data = batch(method, **values)
    for pieces in (1, cut):
        case = Case(method, folder, **values)
        for number in range(pieces):
            some = slice(number * 8 // pieces, (number + 1) * 8 // pieces)
            torch.autograd.backward(case.losses(part(data, some)).sum() / 8)
        grads = [param.grad.flatten() for param in case.module.parameters() if param.grad is not None]
        gradients.append(torch.cat(grads))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


@every_case
def test_twenty_steps_on_moving_squares_lower_the_loss(method: Method, values: dict[str, Any], folder: str) -> None:
    torch.manual_seed(1)
    case, data = Case(method, folder, **values), batch(method, **values)
    optimizer = torch.optim.AdamW(case.module.parameters(), lr=3e-3)
    seen = []
    for _ in range(20):
        loss = case.losses(data).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.9 * seen[0]


@every_case
def test_mask_tokens_and_positions_are_not_decayed(method: Method, values: dict[str, Any], folder: str) -> None:
    module = Case(method, folder, **values).module
    (decayed,) = (group for group in parameter_groups(module, 0.05) if group["weight_decay"])
    chosen = {id(param) for param in decayed["params"]}
    wrong = [name for name, param in module.named_parameters() if id(param) in chosen and param.shape[0] == 1]
    wrong += [name for name, param in module.named_parameters() if id(param) in chosen and "position" in name]
    assert not wrong
    assert any("mask_token" in name for name, _ in module.named_parameters())


@every_case
def test_the_stated_cost_is_that_of_the_forward_pass(method: Method, values: dict[str, Any], folder: str) -> None:
    """Against torch's own count, attention included."""
    case, data = Case(method, folder, **values), batch(method, 1, **values)
    if isinstance(case.module, RegressorModel):
        case.module.aligned = False  # the encoder's pass over hidden tokens has no gradient, and is not counted
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        case.module(data.frames, data.shown, data.predicted)
    assert method.flops(MODEL, GRID, case.options) == pytest.approx(counter.get_total_flops(), rel=0.02)


@every_method
def test_what_a_method_imports_when_it_runs_exists(method: Method) -> None:
    functions = [getattr(method, each.name) for each in fields(method)]
    for function in [each for each in functions if inspect.isfunction(each)] + list(method.targets.values()):
        module = inspect.getmodule(function)
        assert module is not None
        for name in function.__code__.co_names:
            holder = getattr(module, name, None)
            for attribute in function.__code__.co_names if inspect.ismodule(holder) else ():
                if re.search(rf"\b{name}\.{attribute}\b", inspect.getsource(function.__code__)):
                    assert hasattr(holder, attribute), f"{module.__name__}: {name}.{attribute}"
