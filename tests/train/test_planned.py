from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from system import storage
from system.data.dataset import ensure_index, run_uri
from system.recipe import Recipe
from system.train.goodput import account
from system.train.launch import open_run
from system.train.planned import PLAN, compared, told_plan, write_plan
from system.train.summary import write_summary
from system.train.telemetry import Metrics
from tests.small import tiny_recipe

# 40 clips/s for 1,440,000 clips: 10 h.
PROMISE = {"clips_per_s": 40.0, "limit": "decode", "hours": 10.0, "clips": 1_440_000, "worker": "8 x h100"}


def recipe_in(folder: Path, *overrides: str) -> Recipe:
    return tiny_recipe(folder, "run.name=planned", *overrides)


def measured(**other: Any) -> dict[str, Any]:
    return {"clips_per_s": 30.0, "data_wait": 0.25, "clips": 144_000, "run_s": 5400.0, **other}


def found_in(folder: Path, recipe: Recipe, **other: Any) -> dict[str, Any]:
    found = compared(str(folder), recipe, measured(**other))
    assert found is not None
    return found


def test_a_run_is_told_how_far_its_plan_was_off(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    write_plan(str(tmp_path), recipe, PROMISE, {})
    found = found_in(tmp_path, recipe)
    assert found["ratio"] == {"clips_per_s": pytest.approx(0.75), "hours": pytest.approx(1.5)}  # 1 h planned, 1.5 taken
    assert found["differs"] == {}
    assert told_plan(found) == [
        "plan: 40 clips/s on 8 x h100, limited by decode; measured 30, 0.75 of it, limited by data: the trainers waited"
        " for it 25% of the time",
        "plan: 1 h for these clips; 1.5 h were taken, 1.50 of it, starts and ends of jobs among them",
    ]


def test_trainers_that_hardly_waited_were_the_limit(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    write_plan(str(tmp_path), recipe, PROMISE, {})
    found = found_in(tmp_path, recipe, data_wait=0.01)
    assert found["measured"]["limit"] == "step"
    assert "measured 30, 0.75 of it, limited by the step" in told_plan(found)[0]


def test_what_differs_from_the_planned_recipe_is_named_and_the_runs_name_is_none_of_it(tmp_path: Path) -> None:
    write_plan(str(tmp_path), recipe_in(tmp_path, "resources.decode_actors=[2,9]"), PROMISE, {})
    found = found_in(tmp_path, tiny_recipe(tmp_path, "run.name=other", "checkpoint.every_steps=9"))
    assert found["differs"] == {"resources.decode_actors": [[2, 9], 1]}
    assert told_plan(found)[-1] == "plan: it was made for resources.decode_actors=[2, 9] (the run: 1)"


def test_a_run_without_a_plan_says_nothing_of_one(tmp_path: Path) -> None:
    assert compared(str(tmp_path), recipe_in(tmp_path), measured()) is None
    assert told_plan(None) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "null",
        '{"version": 1}',
        '{"version": 9}',
        '{"version": 1, "promise": 3}',
        json.dumps({"version": 1, "promise": {**PROMISE, "clips": 0}, "settings": {}}),
        json.dumps({"version": 1, "promise": {**PROMISE, "clips_per_s": 0}, "settings": {}}),
    ],
)
def test_a_plan_that_cannot_be_read_is_told_and_ends_no_run(tmp_path: Path, text: str) -> None:
    storage.write(storage.join(str(tmp_path), PLAN), text.encode())
    found = found_in(tmp_path, recipe_in(tmp_path))
    assert list(found) == ["unreadable"]
    assert told_plan(found)[0].startswith("plan: plan.json ")


def test_a_run_that_took_no_step_is_not_compared(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    write_plan(str(tmp_path), recipe, {**PROMISE, "hours": None}, {})  # of a run that would never have ended
    found = found_in(tmp_path, recipe, clips_per_s=None, data_wait=0.0, clips=0)
    assert found["ratio"] == {"clips_per_s": None, "hours": None}
    assert told_plan(found) == ["plan: not a step was taken that it could be compared with"]


def test_the_summary_of_a_run_holds_the_comparison(generated: Path) -> None:
    recipe = tiny_recipe(generated, "run.name=planned")
    metrics = Metrics(run_uri(recipe), 0, tensorboard=False)
    for step in range(3):
        metrics.write({"step": step, "loss": 1.0, "step_s": 0.5, "data_wait": 0.0})
    metrics.close()
    write_plan(run_uri(recipe), recipe, PROMISE, {})
    state = open_run(recipe, ensure_index(recipe), print)
    summary = write_summary(
        recipe, state, 0.0, {}, account(0.0, 1.0, []), told_to_stop=False, whole=account(0.0, 9.0, [])
    )
    assert summary["clips_per_s"] == 32  # 16 clips in half a second
    assert summary["plan"]["ratio"]["clips_per_s"] == pytest.approx(0.8)
    assert summary["plan"]["measured"]["hours"] == pytest.approx(9 / 3600)
