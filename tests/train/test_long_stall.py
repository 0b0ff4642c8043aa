"""What a checkpoint of a large model stalls a run: `make test-long` prints it, docs/results.md keeps it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from system.recipe import load_recipe
from system.train.checkpoint import open_checkpoint
from system.train.fragments import Fragment
from system.train.judging import build_model
from system.train.ledger import Made
from system.train.progress import Progress
from system.train.saving import Books, Keeper, RunFacts
from system.train.torch_engine import TorchEngine
from tests.conftest import RECIPES
from tests.train.test_saving import span


def show(line: str) -> None:
    print(line)  # noqa: T201  what this test is for


@pytest.mark.long
def test_the_stall_of_a_vit_l_is_a_copy_of_its_state(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "videomae-vitl-k400.yaml", ["data.uri=/nowhere", "engine.name=torch"])
    module = build_model(recipe, torch.device("cpu"))
    shapes = {name: list(param.shape) for name, param in module.named_parameters()}
    engine = TorchEngine(module, recipe.train, recipe.engine)
    frames = torch.rand(1, 3, 16, 224, 224)
    tokens = torch.randperm(1568)[None]
    shown, hidden = tokens[:, :160].sort().values, tokens[:, 160:].sort().values

    def step() -> float:
        began = time.monotonic()
        engine.backward(engine.forward(frames, shown, hidden)["pixels"].float().square().mean(), last=True)
        engine.step(1e-4)
        return time.monotonic() - began

    step()  # makes Adam's moments
    facts = RunFacts(str(tmp_path), shapes, {}, 1, Made(1, 1))
    kept = Keeper(facts, recipe.checkpoint, engine.fragments, Books(), None)
    kept.written()  # as the loop asks after each step
    steps = [step() for _ in range(3)]
    stalls, whole, beside = [], [], []
    for number in range(1, 4):
        began = time.monotonic()
        kept.begin(Progress(number), span(number - 1, 1))
        stalls.append(time.monotonic() - began)
        beside.append(step())
        kept.finish()
        whole.append(time.monotonic() - began)
    state_bytes = sum(part.values.numel() * 4 for part in engine.fragments())
    show(f"state {state_bytes / 1e9:.2f} GB; a step of one clip {sorted(steps)[1]:.1f} s")
    show(f"stall of the first three checkpoints {', '.join(f'{each:.2f}' for each in stalls)} s")
    show(f"the step beside a checkpoint {sorted(beside)[1]:.1f} s; until committed {sorted(whole)[1]:.1f} s")
    name = next(iter(shapes))
    found = torch.zeros(shapes[name]).flatten()
    open_checkpoint(str(tmp_path), 3).fill([Fragment(name, "exp_avg", 0, found)])
    assert found.abs().sum() > 0
    assert max(stalls[1:]) < min(whole)
