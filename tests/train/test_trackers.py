from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from system.data.dataset import run_uri
from system.train import trackers
from system.train.trackers import WAITING, Child, Trackers, flat, identity_of, row_of
from tests.small import tiny_recipe

# A child that keeps what it gets, and one that does not read.
KEEPS = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read()); print('kept')"
DEAF = "import time; time.sleep(600)"


def child(*command: str, said: list[str]) -> Child:
    return Child("test", {"run": "a"}, said.append, [sys.executable, "-c", *command])


def test_a_child_gets_what_it_is_sent_in_order(tmp_path: Path) -> None:
    said: list[str] = []
    one = child(KEEPS, str(tmp_path / "kept"), said=said)
    for step in range(5):
        one.put({"row": {"step": step}})
    one.no_more()
    one.end(time.monotonic() + 60)
    lines = [json.loads(line) for line in (tmp_path / "kept").read_text().splitlines()]
    assert lines == [{"run": "a"}, *({"row": {"step": step}} for step in range(5))]
    assert said == ["test: kept"]


def test_a_child_that_does_not_read_stops_nobody_and_is_ended() -> None:
    said: list[str] = []
    one = child(DEAF, said=said)
    row = {"row": {"text": "x" * 1000}}
    for _ in range(WAITING + 200):  # the queue and the pipe hold fewer
        one.put(row)
    one.no_more()
    one.end(time.monotonic() + 0.1)
    assert one._process.poll() is not None
    assert "metrics.jsonl has it all" in said[0]
    assert "rows were dropped" in said[1]


def test_a_child_that_hangs_takes_nothing_from_the_next_ones_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, deaf, kept = list[str](), tmp_path / "deaf", tmp_path / "kept"
    # Both are up when the end comes, and one ends as soon as it hears of it.
    programs = {
        "wandb": f"open({str(deaf)!r}, 'w').close(); {DEAF}",
        "mlflow": f"import os, sys; sys.stdin.readline(); open({str(kept)!r}, 'w').close(); rest = sys.stdin.read(); "
        f"open({str(kept)!r}, 'w').write(rest)",
    }
    begun = Child.__init__

    def begin(self: Child, name: str, first: Any, say: Any) -> None:
        begun(self, name, first, say, [sys.executable, "-c", programs[name]])

    monkeypatch.setattr(Child, "__init__", begin)
    recipe = tiny_recipe(tmp_path, "telemetry.trackers=[wandb,mlflow]")
    with Trackers(recipe, said.append) as found:
        found.ended("stopped")
        while not (deaf.exists() and kept.exists()):
            time.sleep(0.01)
    assert json.loads(kept.read_text()) == {"end": "stopped"}
    assert [line.split(":")[0] for line in said] == ["wandb"]


def test_a_child_that_has_died_stops_nobody() -> None:
    said: list[str] = []
    one = child("raise SystemExit(3)", said=said)
    one._process.wait()
    for step in range(100):
        one.put({"row": {"step": step}})
    one.no_more()
    one.end(time.monotonic() + 60)


def test_a_run_has_one_identity_for_all_of_its_jobs(tmp_path: Path) -> None:
    first = identity_of(str(tmp_path / "a"))
    assert identity_of(str(tmp_path / "a")) == first
    assert identity_of(str(tmp_path / "b")) != first


def test_rows_are_sent_where_so_many_steps_have_passed_and_after_a_rewind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    class Noted:
        def __init__(self, *_: Any) -> None: ...

        def put(self, message: dict[str, Any]) -> None:
            sent.append(message["row"]["step"])

        def no_more(self) -> None: ...

        def end(self, until: float) -> None: ...

    monkeypatch.setattr(trackers, "Child", Noted)
    recipe = tiny_recipe(tmp_path, "telemetry.trackers=[mlflow]", "telemetry.log_every_steps=10")
    with Trackers(recipe, print) as found:
        for step in [0, 3, 9, 10, 25, 26, 34, 35, 2, 3, 11, 12]:
            found.saw({"step": step, "loss": 1.0})
    assert sent == [0, 10, 25, 35, 2, 12]


def test_no_trackers_start_no_process_and_write_nothing(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    with Trackers(recipe, print) as found:
        found.saw({"step": 0})
        found.ended("complete")
    assert not Path(run_uri(recipe)).exists()


def test_a_row_holds_numbers_alone() -> None:
    values = {"step": 3, "loss": 0.5, "mfu": None, "seconds": {"compute": 1.0}, "told_at": 5.0, "ok": True}
    assert row_of(values) == {"step": 3, "loss": 0.5}


def test_a_recipe_is_flat_for_a_tracker() -> None:
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}
