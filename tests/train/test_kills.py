"""A run that is killed at every kind of moment ends as one that nobody disturbed, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from system.data.dataset import run_uri
from system.recipe import Recipe
from system.train.checkpoint import complete_steps, latest
from tests.small import tiny_recipe
from tests.train.kills import MOMENTS, Kill, train_killed, train_on_to_the_end
from tests.train.ranks import newest, train_on

RANKS = 2


def run(generated: Path, name: str) -> Recipe:
    return tiny_recipe(
        generated, f"run.name={name}", "checkpoint.every_steps=2", "engine.name=torch", "resources.num_workers=2"
    )


@pytest.fixture(scope="module")
def undisturbed(generated: Path) -> Recipe:
    recipe = run(generated, "undisturbed")
    train_on(RANKS, recipe)
    return recipe


def drawn(moment: str, seed: int) -> Kill:
    """Draw who dies and when; what only rank 0 does happens there."""
    rng = np.random.Generator(np.random.Philox(key=[seed, MOMENTS.index(moment)]))
    on_zero = "manifest" in moment or "ledger" in moment
    most = {"between steps": 7, "in decode": 40, "in the mask stage": 40}.get(moment, 3)
    return Kill(moment, 0 if on_zero else int(rng.integers(RANKS)), int(rng.integers(1, most + 1)))


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_at_any_moment_ends_as_if_nobody_had(generated: Path, undisturbed: Recipe, moment: str) -> None:
    recipe = run(generated, "killed-" + moment.replace(" ", "-"))
    train_killed(RANKS, recipe, drawn(moment, 0), 1)
    for step in complete_steps(run_uri(recipe)):
        assert step % 2 == 0
    train_on_to_the_end(RANKS, recipe, 2)
    one, other = newest(undisturbed), newest(recipe)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    chains = [latest(run_uri(each)) for each in (undisturbed, recipe)]
    assert chains[0] is not None and chains[1] is not None
    assert chains[0].ledger is not None
    assert chains[1].ledger is not None
    assert chains[0].ledger.chain == chains[1].ledger.chain
