from __future__ import annotations

import json
from pathlib import Path

import pytest

from system.data.queues import StageNow
from system.train.goodput import Book, newest_record
from system.train.live import Live, Pace, live_from, of_step
from tests.train.moments import TRAINING


def test_a_record_is_read_as_it_was_written() -> None:
    assert live_from(json.loads(json.dumps(TRAINING.as_dict()))) == TRAINING
    assert TRAINING.stages[0] == StageNow("decode", 3, 2, 4)


def test_what_another_version_says_besides_is_passed_over_and_what_it_does_not_say_is_no_record() -> None:
    told = TRAINING.as_dict()
    assert live_from({**told, "mood": "good"}) == TRAINING
    assert live_from({name: value for name, value in told.items() if name != "steps"}) is None


def test_the_time_left_is_that_of_the_last_steps_and_the_cost_follows() -> None:
    assert Pace().mean_s is None
    pace = Pace()
    for step, length in ((0, 9.0), (0, 9.0), (1, 3.0)):
        pace.saw(step, length)
    assert pace.mean_s == 6.0
    live = Live(**{**TRAINING.as_dict(), "stages": (), "pace_s": 60.0, "price_per_hour": 30.0, "run_s": 7200.0})
    assert (live.left_s, live.cost) == (4320.0, 60.0)
    assert live.cost_left == pytest.approx(36.0)
    assert TRAINING.restarts == 1


def test_before_the_first_step_nothing_is_known_of_it() -> None:
    assert set(of_step({}).values()) == {None}


def test_a_loss_that_is_no_number_is_none_as_json_knows_none() -> None:
    values = {"loss": float("nan"), "lr": 0.1, "standing": {"ranks": 2, "errors": {"open": 1, "short": 2}}}
    assert of_step(values) == {
        **dict.fromkeys(("grad_norm", "clips_per_s", "data_wait", "mfu", "loss")),
        "lr": 0.1,
        "workers": 2,
        "bad_videos": 3,
    }


def test_a_book_keeps_the_newest_moment_with_its_account(tmp_path: Path) -> None:
    run = str(tmp_path)
    assert newest_record(run) is None
    old, new = Book(run, 3, began=0.0), Book(run, 12, began=0.0)
    old.lines()
    assert (record := newest_record(run)) is not None
    assert record.live is None
    new.note(TRAINING)
    new.lines()
    assert (record := newest_record(run)) is not None
    assert record.live == TRAINING
