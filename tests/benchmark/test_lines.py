"""The benchmark's arithmetic, which needs no stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from system.benchmark import history
from system.benchmark.line import Line, Target, verdict
from system.benchmark.table import markdown, table
from system.benchmark.timing import interleaved
from system.errors import DataError

FAST = Line("decode", "one view", "clips/s", 30.0, 10.0, 40.0, (Target("ratio", 2.5), Target("share", 0.7)))


def test_a_line_compares_with_the_conventional_way_and_with_the_limit() -> None:
    assert FAST.ratio == 3.0
    assert FAST.share == 0.75
    assert FAST.reached() is True


def test_of_seconds_less_is_better() -> None:
    line = Line("startup", "import", "s", 2.0, 5.0, 1.0, (Target("at_most", 2.0),), more=False)
    assert line.ratio == 2.5
    assert line.share == 0.5
    assert line.reached() is True
    assert replace(line, ours=2.1).reached() is False


def test_one_target_that_is_missed_makes_a_line_below() -> None:
    assert replace(FAST, targets=(*FAST.targets, Target("at_least", 31.0))).reached() is False


def test_without_its_peer_a_line_is_not_judged_unless_something_else_is_missed() -> None:
    alone = replace(FAST, conventional=None)
    assert alone.ratio is None
    assert alone.reached() is None
    assert replace(alone, limit=100.0).reached() is False


def test_a_line_without_a_target_informs() -> None:
    assert replace(FAST, targets=()).reached() is None


def test_the_verdict_names_what_is_below_and_what_was_not_judged() -> None:
    slow = replace(FAST, name="four views", ours=11.0)
    unknown = replace(FAST, stage="step", name="ViT-B", conventional=None)
    informs = replace(FAST, name="free", targets=())
    text, reached = verdict([FAST, slow, unknown, informs])
    assert text == ("reached 1 of 2: below are decode four views (not judged, since a peer is missing: step ViT-B)")
    assert not reached
    assert verdict([FAST]) == ("reached 1 of 1", True)


def test_contenders_take_turns_and_the_order_is_reversed_every_second_time() -> None:
    order: list[str] = []
    now = [0.0]

    def contender(name: str, seconds: float, items: int) -> Callable[[], int]:
        def work() -> int:
            order.append(name)
            now[0] += seconds
            return items

        return work

    found = interleaved({"a": contender("a", 2.0, 8), "b": contender("b", 1.0, 8)}, 2, clock=lambda: now[0])
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert found["a"].rates == (4.0, 4.0)
    assert found["b"].median == 8.0
    assert found["b"].spread == 0.0


def test_the_table_has_a_row_a_line_and_says_what_is_below() -> None:
    text = table([FAST, replace(FAST, ours=11.0)])
    assert len(text.splitlines()) == 3
    assert "3.00x" in text
    assert text.splitlines()[1].endswith("reached")
    assert text.splitlines()[2].endswith("BELOW")
    assert "| 3.00x |" in markdown([FAST])


def test_the_history_keeps_runs_and_finds_the_last_of_the_same_machine(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history.jsonl"
    here = {"cpu": "a", "cores": 2, "device": None}
    assert history.read(path) == []
    asked = {"videos": "given", "device": "cpu"}
    history.keep(path, history.record(here, asked, [FAST]))
    history.keep(path, history.record({**here, "cpu": "b"}, asked, [replace(FAST, ours=99.0)]))
    history.keep(path, history.record(here, {**asked, "videos": "generated"}, [replace(FAST, ours=98.0)]))
    runs = history.read(path)
    assert len(runs) == 3
    assert history.before(runs, here, asked, FAST) == 30.0
    assert history.before(runs, {**here, "device": "GPU"}, asked, FAST) is None
    assert runs[0]["lines"][0]["reached"] is True


def test_a_torn_line_of_the_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(history.record({}, {}, [])) + "\n{\n")
    with pytest.raises(DataError, match="line 2"):
        history.read(path)
