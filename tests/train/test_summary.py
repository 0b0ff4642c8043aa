from __future__ import annotations

from pathlib import Path

from system.data.dataset import ensure_index, run_uri
from system.train.goodput import account
from system.train.launch import open_run
from system.train.summary import write_summary
from system.train.telemetry import Metrics
from tests.small import tiny_recipe


def test_a_job_that_was_stopped_before_its_first_step_has_a_summary(generated: Path) -> None:
    recipe = tiny_recipe(generated, "run.name=no-step")
    state = open_run(recipe, ensure_index(recipe), print)
    summary = write_summary(recipe, state, 0.0, {}, account(0.0, 1.0, []), told_to_stop=True)
    assert (summary["status"], summary["step"], summary["loss_last"]) == ("stopped", 0, None)
    assert summary["told_to_stop"]
    assert summary["probe"] is None


def test_steps_without_a_loss_are_left_out_of_the_mean(generated: Path) -> None:
    recipe = tiny_recipe(generated, "run.name=some-steps")
    metrics = Metrics(run_uri(recipe), 0, tensorboard=False)
    for step, loss in enumerate([1.0, float("nan"), 3.0]):
        metrics.write({"step": step, "loss": loss, "step_s": 1.0, "data_wait": 0.0})
    metrics.close()
    state = open_run(recipe, ensure_index(recipe), print)
    summary = write_summary(recipe, state, 0.0, {}, account(0.0, 1.0, []), told_to_stop=False)
    assert summary["loss_first"] == summary["loss_last"] == 2.0
