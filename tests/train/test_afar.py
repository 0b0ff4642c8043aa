from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from system import storage
from system.train.afar import judged, look
from system.train.claims import HELD, RELEASED, Claim, Process
from system.train.goodput import Book
from system.train.lease import Lease, Times
from tests.train.moments import TRAINING

AWAY = Process("ann", "trainer-7", "boot", "pid:[1]", 12, "34")
CLAIM = Claim(3, "lease", AWAY, 5, HELD, 1000.0)
QUICK = Times(renew_s=0.02, expires_s=30.0, poll_s=0.01, settle_s=0.02)


def verdict(claim: Claim | None, *, alive: bool = False, status: str = "", step: int = 120) -> tuple[str, str]:
    summary = {"status": status, "step": step, "steps": step} if status else {}
    return judged("/runs/mine", claim, alive=alive, live=TRAINING, summary=summary, now_s=1000.0 + 600.0)


def test_a_run_whose_claim_is_renewed_runs_whatever_an_old_summary_says() -> None:
    assert verdict(CLAIM, alive=True, status="complete") == ("running", "running: ann@trainer-7:12")


def test_a_holder_that_is_gone_is_named_with_the_time_of_its_last_word() -> None:
    state, says = verdict(CLAIM)
    assert state == "dead"
    assert "ann@trainer-7:12 holds it and is dead" in says
    assert "10 minutes ago, and was at step 48 of 120 then" in says
    assert "the same command goes on" in says


@pytest.mark.parametrize(
    ("status", "step", "state"), [("", 0, "stopped"), ("stopped", 48, "stopped"), ("complete", 120, "complete")]
)
def test_a_run_that_was_let_go_of_is_complete_or_stopped(status: str, step: int, state: str) -> None:
    assert verdict(replace(CLAIM, state=RELEASED), status=status, step=step)[0] == state


def test_a_run_that_was_made_longer_after_its_end_is_not_complete() -> None:
    state, says = verdict(replace(CLAIM, state=RELEASED), status="complete", step=100)
    assert (state, "let go of it at step 48 of 120" in says) == ("stopped", True)


def test_where_no_job_has_been_the_run_never_started(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    seen = look(str(tmp_path))
    assert (seen.state, seen.live) == ("never", None)
    assert "is it the run's folder?" in seen.says


def test_a_job_of_this_machine_is_seen_while_it_lives_and_after_it_has_let_go(tmp_path: Path) -> None:
    run = str(tmp_path)
    with Lease.acquire(run, print):
        assert look(run).state == "running"
        book = Book(run, 1, began=0.0)
        book.note(TRAINING)
        book.lines()
    seen = look(run, now_s=lambda: TRAINING.at_s + 7.0)
    assert (seen.state, seen.live, seen.age_s) == ("stopped", TRAINING, 7.0)
    storage.write(f"{run}/summary.json", json.dumps({"status": "complete", "step": 120, "steps": 120}).encode())
    assert look(run).state == "complete"


def test_a_job_that_starts_is_not_shown_as_the_one_before_it(tmp_path: Path) -> None:
    run = str(tmp_path)
    with Lease.acquire(run, print) as first:
        book = Book(run, first.generation, began=0.0)
        book.note(TRAINING)
        book.lines()
    with Lease.acquire(run, print) as second:
        Book(run, second.generation, began=0.0).write()
        assert (look(run).state, look(run).live) == ("running", None)
    assert (look(run).state, look(run).live) == ("stopped", TRAINING), "it never came to training"


def test_a_claim_of_another_machine_is_given_up_only_if_nobody_renews_it(tmp_path: Path) -> None:
    run, place = str(tmp_path), f"{tmp_path}/lease/00000003.json"
    storage.write(place, CLAIM.as_bytes())
    assert look(run, now_s=lambda: CLAIM.time_s + 5.0, times=QUICK).state == "running"
    assert look(run, now_s=lambda: CLAIM.time_s + 3600.0, times=QUICK).state == "dead"
    beats = iter(range(6, 10_000))

    def renewed() -> float:  # asked before the claim is looked at again, by a clock that is an hour ahead
        storage.write(place, replace(CLAIM, beat=next(beats)).as_bytes())
        return CLAIM.time_s + 3600.0

    assert look(run, now_s=renewed, times=QUICK).state == "running"
