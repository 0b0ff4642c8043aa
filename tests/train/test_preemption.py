from __future__ import annotations

from system.train.preemption import Answered, margin_s, saves_due


def test_a_notice_is_answered_at_once_and_again_before_its_deadline() -> None:
    draining, ours = {"a" * 16: 1100.0}, {"a" * 16, "b" * 16}
    answered, lines = saves_due(Answered(), draining, ours, 1000.0, 3.0)
    assert lines == ["machine aaaaaaaa will be taken back in 100 s"]
    answered, lines = saves_due(answered, draining, ours, 1050.0, 3.0)
    assert lines == []
    answered, lines = saves_due(answered, draining, ours, 1097.5, 3.0)
    assert lines == ["machine aaaaaaaa is taken back in 2 s"]
    assert saves_due(answered, draining, ours, 1098.0, 3.0)[1] == []


def test_a_notice_that_comes_late_is_answered_once() -> None:
    draining = {"a": 1002.0}
    answered, lines = saves_due(Answered(), draining, {"a"}, 1000.0, 3.0)
    assert len(lines) == 1
    assert saves_due(answered, draining, {"a"}, 1001.0, 3.0)[1] == []


def test_a_notice_without_a_deadline_is_answered_once() -> None:
    answered, lines = saves_due(Answered(), {"a": 0.0}, {"a"}, 1000.0, 3.0)
    assert lines == ["machine a will be taken back at a time that is not said"]
    assert saves_due(answered, {"a": 0.0}, {"a"}, 9000.0, 3.0)[1] == []


def test_machines_without_trainers_are_owed_nothing() -> None:
    assert saves_due(Answered(), {"a": 1002.0}, {"b"}, 1000.0, 3.0) == (Answered(), [])


def test_several_machines_are_answered_each() -> None:
    draining = {"a": 1100.0, "b": 1200.0}
    answered, lines = saves_due(Answered(), draining, {"a", "b"}, 1000.0, 3.0)
    assert len(lines) == 2
    answered, lines = saves_due(answered, draining, {"a", "b"}, 1098.0, 3.0)
    assert lines == ["machine a is taken back in 2 s"]
    assert saves_due(answered, draining, {"a", "b"}, 1198.0, 3.0)[1] == ["machine b is taken back in 2 s"]


def test_a_slow_checkpoint_is_asked_for_earlier() -> None:
    assert margin_s(None) == 3.0
    assert margin_s(0.2) == 3.0
    assert margin_s(20.0) == 40.0
