from __future__ import annotations

import pytest

from system.chaos.words import kinds, seconds, share
from system.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "value"), [("20s", 20), ("1.5min", 90), ("2m", 120), ("2h", 7200), ("7", 7), (" 0.5s ", 0.5), ("3 s", 3)]
)
def test_a_duration_is_read_in_its_unit(text: str, value: float) -> None:
    assert seconds("--every", text) == value


@pytest.mark.parametrize("text", ["", "0s", "-3s", "20 years", "s", "1e3s", "20s30s"])
def test_what_is_no_duration_is_refused_with_its_option(text: str) -> None:
    with pytest.raises(RecipeError, match=f"--every is a duration above 0.*got '{text}'"):
        seconds("--every", text)


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), ("0", 0), ("100%", 1), ("1", 1)])
def test_a_share_is_read_with_and_without_percent(text: str, value: float) -> None:
    assert share("--corrupt", text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "5", "101%", "-1%", "five", "5%%"])
def test_what_is_no_share_is_refused_with_its_option(text: str) -> None:
    with pytest.raises(RecipeError, match=f"--corrupt is a share from 0% to 100%.*got '{text}'"):
        share("--corrupt", text)


def test_kinds_keep_their_order_and_come_once() -> None:
    assert kinds("--kill", "node, worker,node") == ("node", "worker")
    assert kinds("--kill", "none") == ()


@pytest.mark.parametrize(("text", "got"), [("worker,disk,cat", "disk, cat"), ("", "nothing"), ("none,node", "none")])
def test_a_kind_that_there_is_not_is_named(text: str, got: str) -> None:
    with pytest.raises(RecipeError, match=f"--kill takes worker, node, actor, driver.*got {got}$"):
        kinds("--kill", text)
