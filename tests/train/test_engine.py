"""DeepSpeed's ZeRO against the plain engine: same numbers, and states that either can go on from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from system.config import EngineSection, TrainSection
from system.recipe import load_recipe
from system.train.checkpoint import Checkpoint, open_checkpoint
from system.train.engine import BatchShape, Engine, deepspeed_config, make_engine
from system.train.groups import LrScale, parameter_groups, same_for_each, set_lr
from system.train.manifest import commit, write_rank_file
from system.train.torch_engine import rank_and_size
from tests.conftest import RECIPES
from tests.train.ranks import everything, on_ranks

TRAIN = TrainSection(global_batch=8, steps=6, clip_grad=0.05, base_lr=1.0)


# 0.75 ** 13 of the embedding, 0.75 ** 12 of the first block, ..., 0.75 of the last one, 1 of the head and its norm.
FACTORS = {
    "embed": 0.023757264,
    "0": 0.031676352,
    "1": 0.042235136,
    "2": 0.056313515,
    "3": 0.075084686,
    "4": 0.100112915,
    "5": 0.133483887,
    "6": 0.177978516,
    "7": 0.237304688,
    "8": 0.31640625,
    "9": 0.421875,
    "10": 0.5625,
    "11": 0.75,
    "head": 1.0,
}


class Model(nn.Module):
    """Decayed and undecayed parameters, one of them of odd size, none a multiple of the ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(7, 13), nn.LayerNorm(13), nn.Linear(13, 3, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 13))

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.last(self.norm(torch.relu(self.first(inputs)) + self.mask_token[0]))}


def built() -> Model:
    torch.manual_seed(0)
    return Model()


def steps(engine: Engine, first: int, last: int) -> list[float]:
    """Take steps of two micro-batches of two clips a rank; return gradient norms."""
    rank, size = rank_and_size()
    norms = []
    for step in range(first, last):
        clips = torch.randn(8, 7, generator=torch.Generator().manual_seed(step))
        mine = clips.view(size, 2, 4 // size, 7)[rank]
        for number, part in enumerate(mine):
            loss = (engine.forward(part)["out"] ** 2).sum() / 8
            engine.backward(loss, last=number == 1)
        norms.append(engine.step(1e-2 * (1 + step)))
    return norms


def save(run: str, step: int, engine: Engine) -> None:
    rank, size = rank_and_size()
    files: list[Any] = [None] * size
    dist.all_gather_object(files, write_rank_file(run, step, rank, engine.fragments()))
    if rank == 0:
        shapes = {name: list(param.shape) for name, param in built().named_parameters()}
        commit(run, step, files, shapes, {"optimizer_step": step})
    dist.barrier()


def close(one: Checkpoint, other: Checkpoint) -> bool:
    left, right = everything(one), everything(other)
    return left.keys() == right.keys() and all(torch.allclose(left[key], right[key], atol=2e-6) for key in left)


def a_useless_gradient_changes_nothing(engine: Engine) -> None:
    """A step whose loss is NaN on one rank alone is left out on all, and the next one is as if it had not been."""
    before = [part.values.clone() for part in engine.fragments()]
    rank, size = rank_and_size()
    for number in range(2):
        loss = (engine.forward(torch.ones(4 // size, 7))["out"] ** 2).sum()
        engine.backward(loss * (torch.nan if rank == 0 and number == 0 else 1), last=number == 1)
    assert not math.isfinite(engine.step(1e-2))
    assert all(torch.equal(one, part.values) for one, part in zip(before, engine.fragments(), strict=True))
    # What was NaN is gone: a step of zero learning rate is a step again.
    for number in range(2):
        engine.backward((engine.forward(torch.ones(4 // size, 7))["out"] ** 2).sum(), last=number == 1)
    assert math.isfinite(engine.step(0.0))


def by_layer(name: str) -> float:
    """A rate for each module, so that there are groups with one parameter, and with one that is smaller than a rank's
    share of it."""
    return {"first": 0.25, "norm": 0.5, "last": 1.0, "mask_token": 0.0}[name.partition(".")[0]]


def compare(folder: str) -> None:
    sections = {"torch": EngineSection(name="torch", precision="fp32")}
    sections |= {f"zero{n}": EngineSection(zero_stage=n, precision="fp32") for n in (0, 1, 2, 3)}
    shape = BatchShape(2, 2)
    norms = {}
    for name, section in sections.items():
        engine = make_engine(built(), TRAIN, section, shape, lr_scale=by_layer)
        norms[name] = steps(engine, 0, 3)
        save(f"{folder}/{name}", 3, engine)
        a_useless_gradient_changes_nothing(engine)
        engine = make_engine(built(), TRAIN, section, shape, open_checkpoint(f"{folder}/torch", 3), by_layer)
        norms[name] += steps(engine, 3, 6)
        save(f"{folder}/{name}", 6, engine)
        # ... and the plain engine goes on from what this one wrote.
        engine = make_engine(built(), TRAIN, sections["torch"], shape, open_checkpoint(f"{folder}/{name}", 3), by_layer)
        again = steps(engine, 3, 6)
        assert torch.allclose(torch.tensor(again), torch.tensor(norms["torch"][3:]), rtol=1e-4), (name, again)
    for name, seen in norms.items():
        assert torch.allclose(torch.tensor(seen), torch.tensor(norms["torch"]), rtol=1e-4), (name, seen)
        for step in (3, 6):
            assert close(open_checkpoint(f"{folder}/{name}", step), open_checkpoint(f"{folder}/torch", step)), name


@pytest.mark.slow
def test_every_zero_stage_on_two_ranks_equals_the_plain_engine_before_and_after_a_resume(tmp_path: Path) -> None:
    on_ranks(2, compare, str(tmp_path))


@pytest.mark.parametrize("scale", [same_for_each, by_layer])
def test_the_plain_engine_equals_pytorchs_own_training(scale: LrScale) -> None:
    section, shape = EngineSection(name="torch", precision="fp32"), BatchShape(4, 2)
    engine = make_engine(built(), TRAIN, section, shape, lr_scale=scale)
    model = built()
    groups = [
        {"params": [param], "weight_decay": 0.05 if param.ndim == 2 else 0.0}  # neither 1-D nor the mask token
        for param in model.parameters()
    ]
    optimizer = torch.optim.AdamW(groups, betas=TRAIN.betas, eps=TRAIN.eps)
    norms = steps(engine, 0, 3)
    for step in range(3):
        clips = torch.randn(8, 7, generator=torch.Generator().manual_seed(step))
        torch.autograd.backward((model(clips)["out"] ** 2).sum() / 8)
        assert float(nn.utils.clip_grad_norm_(model.parameters(), 0.05)) == pytest.approx(norms[step], rel=1e-5)
        for group, (name, _) in zip(optimizer.param_groups, model.named_parameters(), strict=True):
            group["lr"] = 1e-2 * (1 + step) * scale(name)
        optimizer.step()
        optimizer.zero_grad()
    for name, param in engine.module.named_parameters():
        assert torch.allclose(param, dict(model.named_parameters())[name], atol=1e-6), name


def test_biases_norms_and_the_mask_token_are_not_decayed() -> None:
    model = built()
    names = {id(param): name for name, param in model.named_parameters()}
    groups = {
        group["weight_decay"]: {names[id(param)] for param in group["params"]}
        for group in parameter_groups(model, 0.05)
    }
    assert groups == {
        0.0: {"first.bias", "norm.weight", "norm.bias", "mask_token"},
        0.05: {"first.weight", "last.weight"},
    }


def test_every_layer_of_a_classifier_has_its_rate() -> None:
    """VideoMAE's ViT-B: 12 blocks, a factor of 0.75 from each layer to the one below it, worked out by hand."""
    recipe = load_recipe(RECIPES / "finetune-k400-vitb.yaml", ["method.classes=3"])
    with torch.device("meta"):
        model = recipe.record.build(recipe.model, recipe.grid, recipe.method)
    names = {id(param): name for name, param in model.named_parameters()}
    groups = parameter_groups(model, 0.05, recipe.lr_scale)
    set_lr(groups, 2e-3)
    seen: dict[str, set[float]] = {}
    for group in groups:
        assert group["lr"] == 2e-3 * group["lr_scale"]
        for param in group["params"]:
            assert group["weight_decay"] == (0.05 if param.ndim > 1 else 0.0)
            name = names[id(param)]
            layer = name.split(".")[2] if ".blocks." in name else "embed" if name.startswith("encoder.") else "head"
            seen.setdefault(layer, set()).add(group["lr_scale"])
    assert {layer: round(scale, 9) for layer, (scale,) in seen.items()} == FACTORS
    assert len(groups) == 2 * 14


def test_deepspeeds_configuration_follows_from_the_recipe() -> None:
    config = deepspeed_config(TRAIN, EngineSection(zero_stage=2, precision="bf16"), BatchShape(4, 3), 2)
    assert config["train_batch_size"] == 24
    assert config["zero_optimization"] == {"stage": 2}
    assert config["gradient_clipping"] == 0.05
    assert config["torch_autocast"] == {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    fp32 = deepspeed_config(TRAIN, EngineSection(precision="fp32"), BatchShape(4, 3), 2)
    assert "torch_autocast" not in fp32
    assert "bf16" not in fp32
