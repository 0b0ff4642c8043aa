from __future__ import annotations

from math import e

import pytest

from system.planning.interval import daly_s, stretch, young_s

MINUTE, HOUR = 60.0, 3600.0


def test_youngs_interval_is_the_root_of_twice_stall_and_mean_time() -> None:
    assert young_s(2.0, 10_000.0) == pytest.approx(200)


@pytest.mark.parametrize(("between_s", "minutes"), [(24 * HOUR, 117), (6 * HOUR, 57), (15 * MINUTE, 9.1)])
def test_dalys_interval_is_that_of_the_papers_figures_3_to_5(between_s: float, minutes: float) -> None:
    assert daly_s(5 * MINUTE, between_s) / MINUTE == pytest.approx(minutes, rel=6e-3)


def test_a_stall_longer_than_the_time_between_preemptions_leaves_dalys_interval_at_that_time() -> None:
    assert daly_s(30.0, 10.0) == 10.0


def test_without_preemptions_only_the_stalls_stretch_a_run() -> None:
    assert stretch(99.0, 1.0, 60.0, 1e12) == pytest.approx(100 / 99, rel=1e-3)


def test_a_stretch_is_dalys_formula() -> None:
    assert stretch(100.0, 0.0, 0.0, 100.0) == pytest.approx(e - 1)
    assert stretch(100.0, 0.0, 100.0, 100.0) == pytest.approx(e * (e - 1))


def test_no_other_interval_stretches_a_run_less_than_dalys() -> None:
    best = daly_s(5.0, HOUR)
    least = stretch(best, 5.0, 30.0, HOUR)
    for other in (0.5, 0.8, 1.25, 2.0):
        assert stretch(other * best, 5.0, 30.0, HOUR) > least
