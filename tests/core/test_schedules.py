from __future__ import annotations

from itertools import pairwise

import pytest

from system.core.schedules import lr_at, num_steps, scaled_lr


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    rates = [lr_at(step, total=100, warmup=11, peak=1.0, final=0.1) for step in range(100)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == rates[11] == 1.0
    assert rates[11 + 45] == pytest.approx(0.55, abs=0.01)  # half-way down
    assert all(earlier >= later for earlier, later in pairwise(rates[11:]))
    assert 0.1 < rates[-1] < 0.101


def test_a_run_without_warm_up_begins_at_the_peak() -> None:
    assert lr_at(0, total=10, warmup=0, peak=2.0, final=0.0) == 2.0


def test_steps_cover_every_epoch_whole() -> None:
    assert num_steps(200, 240_000, 384) == 125_000
    assert num_steps(1, 10, 4) == 3
    assert num_steps(0.001, 10, 4) == 1


def test_the_rate_scales_with_the_batch() -> None:
    assert scaled_lr(1.5e-4, 2048) == pytest.approx(1.2e-3)
