"""Which checkpoint is probed next, and what is kept of what probes found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from system.train.probed import Probed, Turns, good, probe_line, read_probes, scores_of, standing_of


def row(step: int, sha: str = "a", **more: Any) -> dict[str, Any]:
    return {"step": step, "weights_sha256": sha, "probe/knn_top1": step / 100, "probe/seconds": 1.0, **more}


def seen(turns: Turns, *steps: int) -> list[int | None]:
    """Return what waits after each of these checkpoints."""
    waiting = []
    for step in steps:
        turns.saw(step)
        waiting.append(turns.waiting)
    return waiting


def test_every_checkpoint_is_due_where_nothing_else_is_said() -> None:
    assert seen(Turns(1), 0, 4, 4, 8) == [None, 4, 4, 8]


def test_the_first_checkpoint_from_each_multiple_on_is_due() -> None:
    # Checkpoints each 40 steps, a probe each 100.
    turns, taken = Turns(100), []
    for step in range(0, 400, 40):
        turns.saw(step)
        begun = turns.begin()
        if begun is not None:
            taken.append(begun)
            assert turns.end()
    assert taken == [120, 200, 320]


def test_one_is_probed_at_a_time_and_a_newer_one_takes_the_place_of_one_that_waits() -> None:
    turns = Turns(1)
    turns.saw(4)
    assert turns.begin() == 4
    assert seen(turns, 8, 12) == [8, 12]
    assert turns.begin() is None
    assert turns.passed_over == 1
    assert turns.end()
    assert turns.begin() == 12
    assert turns.end()
    assert turns.idle


def test_what_an_earlier_job_has_probed_is_not_due_again() -> None:
    turns = Turns(1, newest=8, committed=8)
    assert seen(turns, 8, 8, 12) == [None, None, 12]


def test_the_last_checkpoint_is_due_in_any_case_but_once() -> None:
    turns = Turns(100)
    turns.last(16)
    turns.last(16)
    assert turns.begin() == 16
    turns.last(16)
    assert turns.waiting is None
    assert turns.end()
    assert turns.idle


def test_steps_that_the_trainers_do_again_are_due_again_and_their_old_probe_does_not_count() -> None:
    turns = Turns(1)
    turns.saw(8)
    assert turns.begin() == 8
    assert not turns.saw(12)
    assert turns.saw(4), "they went back"
    assert turns.waiting is None
    assert not turns.end(), "the checkpoint that was probed is none of the run's any more"
    assert seen(turns, 8) == [8]


def test_one_that_gives_its_machine_back_waits_again_unless_a_newer_one_does() -> None:
    turns = Turns(1)
    turns.saw(4)
    turns.begin()
    turns.put_back()
    assert (turns.waiting, turns.running) == (4, None)
    turns.begin()
    turns.saw(8)
    turns.put_back()
    assert (turns.waiting, turns.running) == (8, None)


def test_rows_are_kept_by_step_and_read_back(tmp_path: Path) -> None:
    probed = Probed(str(tmp_path))
    assert (probed.rows, probed.newest) == ([], 0)
    for each in (row(8), row(4), row(8, "b")):
        probed.add(each)
    again = Probed(str(tmp_path))
    assert [(each["step"], each["weights_sha256"]) for each in again.rows] == [(4, "a"), (8, "b")]
    assert again.newest == 8


def test_rows_of_steps_that_are_done_again_are_set_aside_until_their_weights_are_known(tmp_path: Path) -> None:
    probed = Probed(str(tmp_path))
    for step in (4, 8):
        probed.add(row(step))
    probed.back_to(4)
    assert [each["step"] for each in probed.rows] == [4]
    assert probed.known(4) is None
    known = probed.known(8)
    assert known is not None
    probed.add(known)
    assert [each["step"] for each in read_probes(str(tmp_path))] == [4, 8]
    assert probed.known(8) is None


def test_curves_are_the_scores_of_each_probe_and_of_one_number_of_neighbours() -> None:
    scores = {"top1": 0.5, "top5": 1.0, "per_class": 0.25}
    other = {"top1": 0.0, "top5": 0.0, "per_class": 0.0}
    found = {"knn": {"1": other, "10": scores, "20": other}, "linear": {**scores, "rate": 0.1, "held_out": []}}
    assert scores_of(found) == {f"probe/{kind}_{name}": scores[name] for kind in ("knn", "linear") for name in scores}
    assert scores_of({"knn": {"1": other, "5": scores}})["probe/knn_top1"] == 0.5


def test_a_summary_names_the_newest_probe_and_counts_those_that_failed() -> None:
    rows = [row(4, probes={"knn": {}}), {"step": 8, "time": 0.0, "error": "no"}]
    assert standing_of(rows) == {"newest": row(4), "probes": 1, "failed": 1}
    assert standing_of(rows[1:]) == {"newest": None, "probes": 0, "failed": 1}
    assert standing_of([]) is None
    assert [each["step"] for each in good(rows)] == [4]


@pytest.mark.parametrize("name", ["knn", "linear"])
def test_a_line_says_which_probe_put_how_many_right(name: str) -> None:
    told = probe_line({"step": 8, f"probe/{name}_top1": 0.25, f"probe/{name}_top5": 1.0, "probe/seconds": 3.2})
    assert told == f"probe of step 8: top-1 {name} 25.0%, 3 s"
