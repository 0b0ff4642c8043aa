from __future__ import annotations

import json
import re
from html import unescape

import numpy as np
import pytest

from system.report.curves import (
    LEFT,
    PLOT_H,
    PLOT_W,
    TOP,
    Chart,
    Line,
    Mark,
    Scale,
    log_ticks,
    scale_y,
    short,
    svg,
    thinned,
    ticks,
)


def test_few_points_are_all_drawn_and_those_without_a_value_are_not() -> None:
    y = np.array([3.0, np.nan, 1.0, np.inf, 2.0])
    assert thinned(np.arange(5.0), y, 2).tolist() == [0, 2, 4]


def test_of_a_bucket_the_first_the_last_the_lowest_and_the_highest_are_drawn() -> None:
    # Two buckets of ten points each: x from 0 to 19, cut at 9.5.
    y = np.array([5, 5, 9, 5, 1, 5, 5, 5, 5, 6, 4, 4, 4, 0, 4, 4, 8, 4, 4, 7.0])
    assert thinned(np.arange(20.0), y, 2).tolist() == [0, 2, 4, 9, 10, 13, 16, 19]


def test_a_spike_of_one_step_among_two_hundred_thousand_is_drawn() -> None:
    y = np.zeros(200_000)
    y[123_457] = 7.0
    kept = thinned(np.arange(200_000.0), y, PLOT_W)
    assert 123_457 in kept
    assert len(kept) <= 4 * PLOT_W
    assert kept[0] == 0
    assert kept[-1] == 199_999


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (0.0, 0.9, [0.0, 0.5]),
        (3.0, 117.0, [50.0, 100.0]),
        (0.0, 0.04, [0.0, 0.01, 0.02, 0.03, 0.04]),
        (-1.0, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (5.0, 5.0, [5.0]),
    ],
)
def test_ticks_are_round_numbers_inside_of_the_axis(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_logarithmic_ticks_are_powers_of_ten_and_what_lies_between_where_they_are_few() -> None:
    assert log_ticks(0.008, 12.0) == pytest.approx([0.01, 0.1, 1, 10])
    assert log_ticks(0.09, 1.1) == pytest.approx([0.1, 0.3, 1])


def test_an_axis_is_logarithmic_where_it_may_be_and_positive_values_span_much() -> None:
    assert scale_y(np.array([0.01, 1.0]), log=True).log
    assert not scale_y(np.array([0.01, 1.0]), log=False).log
    assert not scale_y(np.array([0.5, 1.0]), log=True).log
    assert not scale_y(np.array([-1.0, 1000.0]), log=True).log
    assert scale_y(np.array([0.0, 4.0]), log=True).low == 0.0


def test_a_scale_maps_its_ends_and_middle_to_px() -> None:
    straight, log = Scale(0, 10, 100, 200), Scale(0.01, 100, 0, 40, log=True)
    assert straight(np.array([0, 5, 10.0, 99])).tolist() == [100, 150, 200, 200]
    assert log(np.array([0.01, 1, 100, -3])).tolist() == pytest.approx([0, 20, 40, 0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0145, "0.0145"),
        (3e-05, "3e-05"),
        (120, "120"),
        (1234.0, "1234"),
        (20_000, "20k"),
        (2.5e6, "2.5M"),
        (float("nan"), "-"),
    ],
)
def test_numbers_are_written_short(value: float, text: str) -> None:
    assert short(value) == text


def test_a_line_has_a_gap_where_a_value_is_missing_and_a_dot_where_one_stands_alone() -> None:
    y = np.array([1.0, 2.0, np.nan, 3.0, np.nan, 2.0, 1.0])
    drawn = svg(Chart("a", (Line("a", np.arange(7.0), y),)))
    path = re.search(r'class="line c0" d="([^"]+)"', drawn)
    assert path is not None
    assert path[1].count("M") == 2
    assert drawn.count("<circle") == 1


def test_a_line_goes_from_corner_to_corner() -> None:
    drawn = svg(Chart("a", (Line("a", np.array([0.0, 10.0]), np.array([-1.0, 1.0])),)))
    path = re.search(r'd="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', drawn)
    assert path is not None
    x0, y0, x1, y1 = map(float, path.groups())
    # The axis leaves 0.06 of 2.0 above and below: -1 lies at 0.12 of 2.24.
    assert (x0, x1) == (LEFT, LEFT + PLOT_W)
    assert y0 == pytest.approx(TOP + PLOT_H * (1 - 0.12 / 2.24), abs=0.06)
    assert y1 == pytest.approx(TOP + PLOT_H * 0.12 / 2.24, abs=0.06)


def test_a_restart_is_a_line_and_what_was_done_again_a_stripe() -> None:
    mark = Mark(40, 'restart: "<lost>"', 60)
    drawn = svg(Chart("a", (Line("a", np.array([0.0, 100.0]), np.array([0.0, 1.0])),), marks=(mark,)))
    stripe = re.search(r'<rect class="lost" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawn)
    assert stripe is not None
    assert float(stripe[1]) == pytest.approx(LEFT + 0.4 * PLOT_W, abs=0.06)
    assert float(stripe[2]) == pytest.approx(0.2 * PLOT_W, abs=0.06)
    assert drawn.count('class="mark"') == 1
    assert "&lt;lost&gt;" in drawn
    assert "<lost>" not in drawn


@pytest.mark.parametrize("y", [[], [float("nan")] * 3])
def test_a_chart_of_nothing_says_so(y: list[float]) -> None:
    assert "nothing was logged" in svg(Chart("a", (Line("a", np.arange(float(len(y))), np.array(y)),)))


def test_one_point_is_a_chart() -> None:
    assert "<circle" in svg(Chart("a", (Line("a", np.array([3.0]), np.array([0.5])),)))


def test_what_a_pointer_reads_is_few_points_with_their_words() -> None:
    drawn = svg(Chart("a", (Line("loss", np.arange(10_000.0), np.arange(10_000.0)),)))
    hover = re.search(r'data-hover="([^"]*)"', drawn)
    assert hover is not None
    (line,) = json.loads(unescape(hover[1]))
    assert len(line["at"]) <= 160
    assert line["at"][0] == [LEFT, TOP + PLOT_H, "0: 0"]
