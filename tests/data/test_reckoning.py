"""What the coordinator reckons once a turn of its loop."""

from __future__ import annotations

import time

import pytest

from system.data import reckoning
from system.data.reckoning import ReckonOnceAStep, at_most_every


class Manager:
    """Stands for Ray's: counts how often it is told to reckon."""

    def __init__(self) -> None:
        self.times = 0

    def update_usages(self) -> None:
        self.times += 1


class Executor:
    """Stands for Ray's, which has a manager."""

    def __init__(self) -> None:
        self._resource_manager = Manager()


def test_what_was_done_a_moment_ago_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(reckoning, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))
    done: list[float] = []
    work = at_most_every(0.5, lambda: done.append(now[0]))
    for now[0] in (100.0, 100.1, 100.4, 100.5, 100.6, 101.5):
        work()
    assert done == [100.0, 100.5, 101.5]


def test_an_executors_manager_reckons_once_for_calls_that_follow_each_other() -> None:
    executor = Executor()
    manager = executor._resource_manager
    ReckonOnceAStep().before_execution_starts(executor)
    for _ in range(5):
        manager.update_usages()
    assert manager.times == 1
    time.sleep(2 * reckoning.YOUNG_S)
    manager.update_usages()
    assert manager.times == 2


def test_an_executor_of_another_version_is_left_as_it_is() -> None:
    ReckonOnceAStep().before_execution_starts(object())
