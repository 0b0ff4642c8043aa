"""The benchmark's steps: both ways have the same loss, and what a line says follows from what was measured."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from system.benchmark import step
from system.benchmark.conventional_step import ConventionalStep, conventional_model
from system.benchmark.line import Line
from system.benchmark.matrix_rate import matrix_rate
from system.benchmark.stages import Asked
from system.benchmark.step import SHORT_CASES, OurStep, Precision, ready, recipe_of
from system.models.sizes import shapes
from system.models.weights import to_hugging_face
from tests.conftest import REPOSITORY

CPU = torch.device("cpu")
said: list[str] = []
ASKED = Asked("synthetic", "", "cpu", short=True, say=said.append)
BARE = """
import sys
for name in ("ray", "deepspeed", "decord", "av", "boto3", "botocore", "pyarrow", "tensorboard"):
    sys.modules[name] = None  # so that it is found nowhere
from jobs.benchmark import main
sys.exit(main(["mask", "step", "--short", "--videos", "synthetic", "--device", "cpu"]))
"""


@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-4), ("bf16", 1e-2)])
def test_both_ways_take_the_same_step(precision: Precision, near: float) -> None:
    case = next(case for case in SHORT_CASES if case.precision == precision)
    recipe = recipe_of(case, CPU, short=True)
    batch, visible = ready(ASKED, recipe, CPU)
    ours = OurStep(recipe, batch)
    model = conventional_model(recipe.grid, *shapes(recipe.model))
    model.load_state_dict(to_hugging_face(ours.engine.module.state_dict()), strict=False)
    theirs = ConventionalStep(model, batch.frames, visible, bf16=precision == "bf16")
    losses = []
    for _ in range(4):
        assert float(ours.loss().detach()) == pytest.approx(float(theirs.loss().detach()), rel=near)
        losses.append(float(ours.loss().detach()))
        assert ours() == theirs() == 1
    assert losses[-1] < losses[0]


def test_a_short_measurement_has_a_line_for_each_precision() -> None:
    lines: list[Line] = list(step.measure(ASKED))
    assert [line.name for line in lines] == ["ViT-T fp32", "ViT-T bf16"]
    for line in lines:
        assert line.conventional is not None
        assert line.limit is not None
        assert line.reached() is not None
        assert line.ratio == pytest.approx(line.ours / line.conventional)


def test_the_rate_of_matrices_is_one() -> None:
    assert matrix_rate(CPU, torch.float32, short=True) > 1e6


@pytest.mark.slow
def test_masks_and_steps_are_measured_on_a_host_without_ray_deepspeed_decord_and_pyav() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BARE], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("reached ")
