"""The arithmetic of trying again, without waiting."""

from __future__ import annotations

import pytest

from system.errors import DataError, StorageFault
from system.storage import retry
from system.storage.retry import Budget, budget, is_passing, pause_s, retried

AMPLE = Budget(100, 1e9)


@pytest.mark.parametrize(
    ("status", "code", "passes"),
    [
        (500, "InternalError", True),
        (502, "502", True),
        (503, "SlowDown", True),
        (504, "", True),
        (429, "TooManyRequests", True),
        (400, "RequestTimeout", True),
        (400, "BadDigest", True),
        (200, "InternalError", True),
        (403, "AccessDenied", False),
        (404, "NoSuchBucket", False),
        (412, "PreconditionFailed", False),
        (501, "NotImplemented", False),
    ],
)
def test_what_passes_is_known_by_status_or_word(status: int, code: str, passes: bool) -> None:
    assert is_passing(status, code) == passes


def test_pauses_double_and_half_of_each_is_drawn() -> None:
    assert [pause_s(failed, 0.0, 0.999999, AMPLE) for failed in (1, 2, 3)] == pytest.approx([0.1, 0.2, 0.4])
    assert [pause_s(failed, 0.0, 0.0, AMPLE) for failed in (1, 2, 3)] == pytest.approx([0.05, 0.1, 0.2])
    assert pause_s(50, 0.0, 0.0, AMPLE) == retry.LONGEST_PAUSE_S / 2


def test_tries_and_seconds_both_end_it() -> None:
    assert pause_s(2, 0.0, 0.5, Budget(3, 60.0)) is not None
    assert pause_s(3, 0.0, 0.5, Budget(3, 60.0)) is None
    assert pause_s(1, 59.99, 0.5, Budget(3, 60.0)) is None


def test_the_default_budget_outlasts_a_store_that_refuses_for_fifteen_seconds() -> None:
    pauses = [pause_s(failed, 0.0, 0.0, budget()) for failed in range(1, retry.TRIES)]
    assert sum(pause for pause in pauses if pause is not None) > 15
    assert None not in pauses


def test_the_environment_sets_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(retry.TRIES_VARIABLE, "4")
    monkeypatch.setenv(retry.SECONDS_VARIABLE, "2.5")
    assert budget() == Budget(4, 2.5)
    for wrong in ("0", "many", "nan", "inf"):
        monkeypatch.setenv(retry.TRIES_VARIABLE, wrong)
        with pytest.raises(DataError, match=f"TUBELET_STORAGE_TRIES is a number of at least 1, got {wrong}"):
            budget()


def test_work_is_told_how_often_it_failed_and_its_last_error_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)
    seen: list[int] = []

    def work(failed: int) -> str:
        seen.append(failed)
        if failed < 3:
            raise OSError("cut")
        return "done"

    assert retried(work, "s3://b/k", str) == "done"
    assert seen == [0, 1, 2, 3]
    monkeypatch.setenv(retry.TRIES_VARIABLE, "2")
    with pytest.raises(StorageFault, match=r"^s3://b/k: cut \(given up after 2 tries in 0.0 s\)$"):
        retried(work, "s3://b/k", str)


def test_an_error_that_does_not_pass_is_raised_at_once() -> None:
    seen: list[int] = []

    def work(failed: int) -> None:
        seen.append(failed)
        raise KeyError("x")

    with pytest.raises(KeyError):
        retried(work, "s3://b/k", lambda _: "")
    assert seen == [0]
