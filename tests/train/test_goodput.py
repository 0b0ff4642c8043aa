from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from system.train import goodput
from system.train.goodput import (
    PARTS,
    Account,
    Attempt,
    Book,
    Seconds,
    account,
    read_records,
    summed,
    told_goodput,
)

STEPS = {"start": 6.0, "compute": 30.0, "data_wait": 5.0, "checkpoint": 1.0, "replayed": 4.0}


def check(found: Account, whole: int) -> None:
    assert found.whole == whole
    assert sum(found.idle.values()) == found.parts["idle"]
    assert all(amount >= 0 for amount in (*found.parts.values(), *found.idle.values()))


def test_every_second_of_a_job_is_attributed_once() -> None:
    failed = Attempt(began=1010.0, ended=1075.5, told_at=1071.0, seconds=STEPS, failed=True)
    whole = Attempt(began=1080.0, ended=1140.0, told_at=1137.0, seconds={**STEPS, "replayed": 0.0})
    found = account(1000.0, 1144.25, [failed, whole])
    check(found, 144_250)
    assert [found.parts[name] for name in ("compute", "data_wait", "checkpoint", "replayed")] == [
        60_000,
        10_000,
        2_000,
        4_000,
    ]
    # before the first block (61 - 40, 57 - 36), and from the last step to the notice of the failure
    assert found.parts["restart"] == 21_000 + 4_500 + 21_000
    assert found.idle == {"set-up": 10_000, "waiting": 4_500, "closing": 3_000 + 4_250}


def test_an_attempt_without_a_step_is_all_restart() -> None:
    found = account(1000.0, 1030.0, [Attempt(began=1002.0, ended=1020.0, failed=True)])
    check(found, 30_000)
    assert found.parts["restart"] == 18_000
    assert found.idle == {"set-up": 2_000, "waiting": 0, "closing": 10_000}


def test_an_attempt_that_goes_on_counts_until_now() -> None:
    found = account(1000.0, 1050.0, [Attempt(began=1000.0, told_at=1049.0, seconds=STEPS)])
    check(found, 50_000)
    assert found.parts["restart"] == 9_000 + 1_000
    assert found.parts["idle"] == 0


def test_a_job_without_an_attempt_is_set_up() -> None:
    found = account(1000.0, 1007.0, [])
    check(found, 7_000)
    assert found.idle["set-up"] == 7_000


def test_clocks_that_disagree_cost_no_second_and_make_none() -> None:
    fast = Attempt(began=1000.0, ended=1040.0, told_at=1041.0, seconds={**STEPS, "compute": 50.0}, failed=True)
    found = account(1000.0, 1040.0, [fast])
    check(found, 40_000)
    assert found.parts["compute"] == 40_000


def test_odd_fractions_add_up_exactly() -> None:
    attempts = [
        Attempt(1000 + 7.0003 * n, 1000 + 7.0003 * n + 6.9996, 1000 + 7.0003 * n + 5.55555, {"compute": 1.23456}, True)
        for n in range(50)
    ]
    check(account(1000.0, 1350.0147, attempts), 350_014)


def test_accounts_of_jobs_add_up() -> None:
    one = account(0.0, 10.0, [Attempt(1.0, 9.0, 8.0, {"compute": 5.0})])
    both = summed([one, one])
    check(both, 20_000)
    assert both.parts["compute"] == 10_000


def test_the_line_says_the_shares() -> None:
    line = told_goodput("this job", account(0.0, 10.0, [Attempt(1.0, 9.0, 8.0, {"compute": 5.0})]))
    assert line.startswith("goodput of this job, 10 s: compute 50.0%, data wait 0.0%,")
    assert line.endswith("idle 30.0% (set-up 10.0%, closing 20.0%)")


def test_the_seconds_of_a_rank_add_up_and_its_first_wait_is_the_streams_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 110.0, 114.0, 115.5])
    monkeypatch.setattr(goodput, "time", SimpleNamespace(monotonic=lambda: next(now)))
    seconds = Seconds(reached=8)
    for step, wait_s, checkpoint_s in ((7, 6.0, 0.5), (8, 1.0, 2.0), (9, 0.25, 0.0)):
        seconds.step(step, wait_s, checkpoint_s)
    assert seconds.parts == {"start": 6.0, "replayed": 4.0, "data_wait": 1.25, "checkpoint": 2.0, "compute": 2.25}
    assert sum(seconds.parts.values()) == 115.5 - 100.0


def test_a_book_is_read_by_the_next_job(tmp_path: Path) -> None:
    run = str(tmp_path)
    first = Book(run, 3, began=0.0)
    assert first.reached == 0
    first.begin()
    first.told({"step": 41, "told_at": 5.0, "seconds": {"compute": 1.0}})
    first.end(failed=True)
    assert len(first.lines()) == 1
    second = Book(run, 5, began=0.0)
    assert second.reached == 42
    second.begin()
    second.told({"step": 30, "told_at": 6.0, "seconds": {"replayed": 1.0}})
    assert second.reached == 42
    second.end(failed=False)
    told = second.lines()
    assert len(told) == 2
    assert told[1].startswith("goodput of the run's 2 jobs")
    records = read_records(run)
    assert list(records) == [3, 5]
    assert all(set(each.account.parts) == set(PARTS) for each in records.values())


def test_a_clock_that_is_set_back_does_not_keep_the_record_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Book(str(tmp_path), 1, time.time())
    book.begin()
    book.write()
    monkeypatch.setattr(goodput, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(goodput, "time", SimpleNamespace(time=lambda: 1.0, monotonic=time.monotonic))
    book.told({"step": 6, "told_at": 1.0})
    assert book._behind is not None
    book._behind.join(20)
    assert read_records(str(tmp_path))[1].reached == 7
