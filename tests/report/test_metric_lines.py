from __future__ import annotations

import numpy as np

from system.report.metric_lines import read_lines


def test_values_that_are_missing_null_or_no_numbers_are_nan() -> None:
    found = read_lines(
        ['{"step": 0, "loss": 1.5, "mfu": null}', '{"step": 1, "loss": null, "note": "x"}', '{"step": 2}']
    )
    assert found["step"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found["loss"], [1.5, np.nan, np.nan])
    assert not found.has("mfu")
    assert not found.has("note")
    assert np.isnan(found["never"]).all()


def test_infinity_is_no_value() -> None:
    assert not read_lines(['{"step": 0, "loss": Infinity}', '{"step": 1, "loss": NaN}']).has("loss")


def test_lines_that_cannot_be_read_are_counted_and_left_out() -> None:
    found = read_lines([b'{"step": 0, "loss": 1}', b'{"loss": 1}', b"[1]", b'{"step": 1, "lo', b"", b"\xff"])
    assert len(found) == 1
    assert found.unreadable == 4


def test_a_step_that_stands_twice_counts_once_with_its_later_line() -> None:
    found = read_lines(['{"step": 4, "loss": 9}', '{"step": 3, "loss": 2}', '{"step": 4, "loss": 1}'])
    assert found["step"].tolist() == [3, 4]
    assert found["loss"].tolist() == [2, 1]


def test_nothing_is_no_steps() -> None:
    found = read_lines([])
    assert len(found) == 0
    assert len(found["loss"]) == 0
    assert found.names("loss/") == []


def test_parts_of_the_loss_are_found_by_their_prefix() -> None:
    found = read_lines(['{"step": 0, "loss": 2, "loss/pixels": 1, "loss/codes": 1, "loss/none": null}'])
    assert found.names("loss/") == ["loss/codes", "loss/pixels"]
