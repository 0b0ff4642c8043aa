"""The learning check's tables, from plain values."""

from __future__ import annotations

import math
from typing import Any

from system.report.learning import accuracy_rows, loss_rows, markdown, spread, sweep_rows, told


def trial(method: str, seed: int, scores: dict[int, float], **more: Any) -> dict[str, Any]:
    points = [{"clips": clips, "probe": score, "fine_tuned": score + 0.1} for clips, score in scores.items()]
    return {"method": method, "seed": seed, "points": points, **more}


TRAINED = {"losses": {"loss": [0.5, 0.02]}, "motion": None, "leakage": 0.05, "pretraining_cpu_s": 90.0}
TRIALS = [
    trial("untrained", 0, {0: 0.20}, swept={"0.001": 0.1, "0.003": 0.2}, swept_longer={"0.001": 0.4, "0.003": 0.3}),
    trial(
        "videomae",
        0,
        {400: 0.30, 1600: 0.50},
        swept={"0.001": 0.8, "0.003": 0.6},
        swept_longer={"0.001": 0.9, "0.003": 0.9},
        **TRAINED,
    ),
    trial("untrained", 1, {0: 0.30}, swept={"0.001": 0.3, "0.003": 0.2}, swept_longer={"0.001": 0.6, "0.003": 0.3}),
    trial(
        "videomae",
        1,
        {400: 0.40, 1600: 0.40},
        swept={"0.001": 0.7, "0.003": 0.5},
        swept_longer={"0.001": 0.9, "0.003": 0.8},
        **TRAINED,
    ),
]


def test_a_spread_is_the_sample_deviation_and_one_value_has_none() -> None:
    assert spread([1.0, 3.0]) == (2.0, math.sqrt(2))
    assert told([0.2, 0.3]) == "25.0 +- 7.1"
    assert told([0.2]) == "20.0"


def test_a_lead_is_taken_seed_by_seed() -> None:
    untrained, videomae = accuracy_rows(TRIALS, "probe")
    assert untrained == ["untrained", "", "25.0 +- 7.1", ""]
    assert videomae == ["videomae", "35.0 +- 7.1", "45.0 +- 7.1", "20.0 +- 14.1"]


def test_the_best_learning_rate_of_a_start_is_that_of_the_highest_mean_over_seeds() -> None:
    assert sweep_rows(TRIALS, 3) == [
        ["untrained", "20.0 +- 14.1", "20.0 +- 0.0", "20.0 +- 14.1 at 0.001"],
        ["untrained, 3 times as long", "50.0 +- 14.1", "30.0 +- 0.0", "50.0 +- 14.1 at 0.001"],
        ["videomae", "75.0 +- 7.1", "55.0 +- 7.1", "75.0 +- 7.1 at 0.001"],
        ["videomae, 3 times as long", "90.0 +- 0.0", "85.0 +- 7.1", "90.0 +- 0.0 at 0.001"],
    ]


def test_losses_are_told_for_what_was_trained() -> None:
    assert loss_rows(TRIALS) == [["videomae", "loss", "0.5", "0.02", "", "5.0 +- 0.0", "90"]]


def test_the_report_names_command_commit_and_machine() -> None:
    result = {
        "command": "python -m jobs.learning_check",
        "commit": "abc1234",
        "machine": "2 CPU cores",
        "seconds": 120.0,
        "labels": 10,
        "raw_pixels": 0.16,
        "trials": TRIALS,
        "settings": {"longer": 3},
        "leakage": {"tube": 0.05},
    }
    text = markdown(result)
    for part in ("python -m jobs.learning_check", "abc1234", "2 CPU cores", "2 min", "seeds 0, 1", "| tube | 5.0 |"):
        assert part in text
    assert "1,600 clips" in text
