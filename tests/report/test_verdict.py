from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from system.report.metric_lines import Metrics, read_lines
from system.report.reference import Point, Reference
from system.report.verdict import (
    Check,
    Status,
    Verdict,
    Videos,
    check_data_wait,
    check_goodput,
    check_gradient,
    check_loss,
    check_videos,
    spikes,
)


def logged(**columns: list[Any]) -> Metrics:
    count = len(next(iter(columns.values())))
    rows = [{"step": step, **{name: values[step] for name, values in columns.items()}} for step in range(count)]
    return read_lines(json.dumps(row) for row in rows)


BAND = Reference("small", "three seeds", (Point(5, 0.8, 1.2), Point(10, 0.4, 0.6)))


@pytest.mark.parametrize(
    ("late", "status", "told"),
    [
        (0.5, "good", "0.5 at step 10, band 0.4 to 0.6; 2 points compared"),
        (0.7, "bad", "0.7 at step 10, band 0.4 to 0.6"),
        (0.1, "look", "0.1 at step 10, band 0.4 to 0.6"),
    ],
)
def test_a_loss_is_compared_with_the_band_at_the_last_point_that_is_reached(
    late: float, status: Status, told: str
) -> None:
    check = check_loss(logged(loss=[1.0] * 5 + [late] * 5), BAND)
    assert (check.status, check.value) == (status, told)
    assert "three seeds" in check.rule


def test_a_loss_that_came_back_into_the_band_is_worth_a_look() -> None:
    check = check_loss(logged(loss=[3.0] * 5 + [0.5] * 5), BAND)
    assert check.status == "look"
    assert "outside of it at step 5" in check.value


def test_before_the_first_point_of_a_band_nothing_is_judged() -> None:
    check = check_loss(logged(loss=[1.0] * 4), BAND)
    assert check.status == "open"
    assert "step 5" in check.value


def test_without_a_reference_a_loss_has_to_fall_and_the_check_says_that_there_is_none() -> None:
    falls, rises = [1.0] * 10 + [0.5] * 10, [0.5] * 10 + [1.0] * 10
    assert check_loss(logged(loss=falls), "none was measured").status == "good"
    check = check_loss(logged(loss=rises), "none was measured")
    assert (check.status, check.value) == ("look", "0.5 -> 1")
    assert "no reference: none was measured" in check.rule


def test_without_a_reference_a_loss_that_rose_again_is_worth_a_look() -> None:
    diverged = [1.0] * 10 + [0.05] * 50 + [0.9] * 40
    check = check_loss(logged(loss=diverged), "none was measured")
    assert (check.status, check.value) == ("look", "1 -> 0.05 -> 0.9")
    assert check_loss(logged(loss=[1.0] * 10 + [0.05] * 50 + [0.07] * 40), "none was measured").status == "good"


def test_one_logged_step_is_told_as_one_and_does_not_condemn_a_run() -> None:
    check = check_loss(logged(step=[0, 7], loss=[1.0, 0.7]), Reference("small", "seeds", (Point(8, 0.4, 0.6),)))
    assert (check.status, check.value.endswith("by 1 logged step of the 5 before it")) == ("look", True)


def test_where_no_logged_step_falls_before_a_point_the_check_does_not_say_that_it_is_ahead() -> None:
    check = check_loss(logged(step=[10, 20], loss=[1.0, 0.5]), BAND)
    assert (check.status, "no step is logged of the 5 before" in check.value) == ("open", True)


def test_a_loss_that_ends_without_a_number_is_bad() -> None:
    assert check_loss(logged(loss=[1.0, None]), BAND).status == "bad"
    assert check_loss(logged(loss=[None, None]), "none").status == "bad"


def test_of_one_step_no_fall_is_judged() -> None:
    assert check_loss(logged(loss=[1.0]), "none").status == "open"
    nothing = check_loss(read_lines([]), "none was measured")
    assert (nothing.status, "no reference: none was measured" in nothing.rule) == ("open", True)


def test_a_spike_is_ten_times_the_median_of_the_steps_before_it() -> None:
    norms = np.ones(100)
    norms[[5, 40, 70]] = 50.0, 9.9, 10.1  # the first has too few before it, the second is too small
    assert spikes(norms) == [70]
    norms[60] = np.nan
    assert spikes(norms) == [70]


@pytest.mark.parametrize(
    ("norms", "skipped", "status"),
    [
        ([1.0] * 100, 0, "good"),
        ([1.0] * 99 + [11.0], 0, "look"),
        ([1.0] * 100, 1, "look"),
        ([1.0] * 97 + [None] * 2 + [1.0], 0, "look"),
        ([1.0] * 96 + [None] * 3 + [1.0], 0, "bad"),
        ([1.0] * 99 + [None], 0, "bad"),
        ([None] * 3, 0, "bad"),
        ([], 0, "open"),
    ],
)
def test_gradients_are_judged_by_spikes_and_by_steps_left_out(
    norms: list[float | None], skipped: int, status: Status
) -> None:
    metrics = logged(grad_norm=norms) if norms else read_lines([])
    assert check_gradient(metrics, skipped, len(norms)).status == status


@pytest.mark.parametrize(("skipped", "status"), [(20, "look"), (21, "bad")])
def test_steps_left_out_are_a_share_of_all_steps_of_which_every_tenth_is_logged(skipped: int, status: Status) -> None:
    metrics = logged(step=[*range(0, 1000, 10)], grad_norm=[1.0] * 100)
    assert check_gradient(metrics, skipped, 1000).status == status


def test_the_wait_for_data_is_weighted_by_the_steps_lengths_and_starts_do_not_count() -> None:
    # Steps 0 and 2 are first ones; of the others 0.1 * 1 + 0.3 * 3 = 1.0 of 4 seconds are waits.
    metrics = logged(data_wait=[0.9, 0.1, 0.9, 0.3], step_s=[10.0, 1.0, 10.0, 3.0])
    check = check_data_wait(metrics, [0, 2])
    assert check.value == "25.0% of the steps' time"
    assert check.status == "look"


@pytest.mark.parametrize(("wait", "status"), [(0.05, "good"), (0.06, "look"), (0.26, "bad")])
def test_a_wait_is_judged_by_its_share(wait: float, status: Status) -> None:
    assert check_data_wait(logged(data_wait=[0.0, wait, wait], step_s=[1.0] * 3), []).status == status


def test_a_wait_is_not_judged_by_a_first_step() -> None:
    assert check_data_wait(logged(data_wait=[1.0], step_s=[1.0]), []).status == "open"
    assert check_data_wait(read_lines([]), []).status == "open"


@pytest.mark.parametrize(
    ("videos", "status"),
    [
        (Videos(1000, 10, 5000, 50, 0.1), "good"),
        (Videos(1000, 11, 5000, 0, 0.1), "look"),
        (Videos(1000, 0, 5000, 51, 0.1), "look"),
        (Videos(1000, 101, 5000, 0, 0.1), "bad"),
        (Videos(0, 0, 0, 0, 0.1), "open"),
    ],
)
def test_videos_are_judged_by_their_share_and_by_the_slots(videos: Videos, status: Status) -> None:
    assert check_videos(videos).status == status


@pytest.mark.parametrize(
    ("compute_s", "other_s", "status"),
    [(600, 500, "good"), (100, 500, "open"), (1000, 5000, "look"), (0, 0, "open")],
)
def test_goodput_of_a_short_run_is_not_judged(compute_s: int, other_s: int, status: Status) -> None:
    check = check_goodput({"compute": 1000 * compute_s, "restart": 1000 * other_s})
    assert check.status == status
    assert "restart" in check.advice or status != "look"


def check(status: Status) -> Check:
    return Check(f"Thing {status}", status, "a value", "a rule")


@pytest.mark.parametrize(
    ("found", "status", "headline"),
    [
        (["good", "open"], "good", "Healthy"),
        (["good", "look", "open"], "look", "Healthy, with something to look at"),
        (["look", "bad", "good"], "bad", "Not healthy"),
        (["open"], "open", "Nothing to judge yet"),
    ],
)
def test_the_worst_that_is_known_is_the_verdict(found: list[Status], status: Status, headline: str) -> None:
    verdict = Verdict(tuple(check(each) for each in found))
    assert (verdict.status, verdict.headline) == (status, headline)


def test_a_verdict_says_why() -> None:
    assert Verdict((check("good"), check("bad"))).reason == "thing bad: a value"
    assert Verdict((check("good"), check("open"))).reason == "1 of 2 checks are good; not judged: thing open"
