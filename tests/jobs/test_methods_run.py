"""Methods that need more of the pipeline than frames and masks, started as a user starts them, with two workers."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from system.train.telemetry import read_metrics
from tests.conftest import RECIPES, TINY
from tests.jobs.processes import job

pytestmark = pytest.mark.ray

SHORT = [*TINY, "train.steps=4", "train.warmup_steps=1", "resources.num_workers=2"]


@pytest.mark.parametrize(
    ("method", "options", "pictures"),
    [
        # A tokenizer is fitted first, and both its codes and flow reach the trainers.
        ("mam2", ["method.codes=16", "method.motion_target=flow"], 5),
        # A fifth frame is decoded; and only half of the tokens are predicted.
        ("motionmae", ["method.decoder_mask=running_cell"], 6),
        # Masks come from the stream's vectors.
        ("mgm", [], 4),
    ],
)
def test_a_method_runs_from_its_name(tmp_path: Path, method: str, options: list[str], pictures: int) -> None:
    given = ["--recipe", str(RECIPES / "smoke.yaml"), "--address", "local", *SHORT, *options]
    with job("jobs.pretrain", *given, f"run.storage={tmp_path}", f"run.name={method}", f"method.name={method}") as run:
        run.wait()
    rows = read_metrics(str(tmp_path / method))
    assert [row["step"] for row in rows] == list(range(4))
    assert all(np.isfinite(row["loss"]) for row in rows)
    summary = json.loads((tmp_path / method / "summary.json").read_text())
    assert summary["status"] == "complete"
    if method == "mgm":
        assert summary["slots_fallback"] == 0
    picture = cv2.imread(summary["outputs"]["picture"])
    assert picture is not None
    rows_of_images = picture.shape[0] // 32 // 2
    assert rows_of_images == pictures
