"""What one video can do to its decode child, and that it costs the child and a deadline, never the parent."""

from __future__ import annotations

import io
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from system.data import process as process_module
from system.data import sandbox as sandbox_module
from system.data.decode import decode_pyav
from system.data.sandbox import Answer, Job, Limits, Sandbox, Video, decode_job
from system.errors import DataError, DecodeError, StorageFault
from system.storage import MissingError
from tests.data.children import (
    FRAME_BYTES,
    GOOD,
    REQUEST,
    asking,
    child,
    evil,
    good,
    hurried,
    outcome,
    running,
    video,
    works,
)

__all__ = ["child", "hurried"]


def test_frames_come_back_through_shared_memory_in_order() -> None:
    child = Sandbox(FRAME_BYTES, Limits())
    data = [GOOD, b"no video", GOOD, GOOD]
    requests = [replace(REQUEST, frames=(first, 5, 9, 13)) for first in range(4)]
    jobs = [decode_job(video(each), request) for each, request in zip(data, requests, strict=True)]
    for number, answer in enumerate(child.run(jobs)):
        assert isinstance(answer, DecodeError if number == 1 else Answer)
        if isinstance(answer, Answer):
            assert np.array_equal(answer.frames, decode_pyav(io.BytesIO(GOOD), requests[number]))  # type: ignore[arg-type]
    child.close()


@pytest.mark.slow
def test_a_hanging_video_costs_a_deadline_and_a_second_chance(child: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert works(child)
    monkeypatch.setattr(sandbox_module, "START_S", 1.0)
    began = time.monotonic()
    error = outcome(child, "hang")
    assert error.code == "deadline"
    assert time.monotonic() - began > 5  # 1 s, then 5 + 1 s alone in a fresh child
    assert works(child)


@pytest.mark.slow
def test_a_video_that_spins_costs_its_cpu_time_and_a_second_chance(hurried: Sandbox) -> None:
    assert works(hurried)
    process = running(hurried)
    answer = hurried.one(Job(video(b"x"), "spin", {"until_s": 60}))
    assert isinstance(answer, DecodeError)
    assert (answer.code, answer.reason) == ("deadline", "used more than 0.5 s of CPU")  # 5 times 0.1 s
    assert process.poll() == -signal.SIGXCPU
    assert works(hurried)


@pytest.mark.slow
def test_threads_of_a_child_share_its_cpu_time(hurried: Sandbox) -> None:
    assert outcome(hurried, "spin on threads").reason == "used more than 0.5 s of CPU"


@pytest.mark.slow
def test_a_slow_video_is_decoded_by_its_second_chance(hurried: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "SECOND_CHANCE", 50)
    assert works(hurried)
    process = running(hurried)
    assert isinstance(hurried.one(Job(video(b"x"), "spin", {"until_s": 2.5})), Answer)
    assert process.poll() == -signal.SIGXCPU


def test_each_job_has_cpu_time_of_its_own_within_that_of_the_childs_life(hurried: Sandbox) -> None:
    for _ in range(2):
        answer = hurried.one(evil("limits"))
        assert isinstance(answer, Answer)
        (soft, hard), used = answer.values["cpu"], answer.values["used"]
        assert hard == 62  # 60 s for its start, ten videos and a second chance of 0.1 s each, rounded up
        assert used < soft <= used + 1.2


def test_a_child_that_has_swollen_is_replaced(hurried: Sandbox) -> None:
    assert isinstance(hurried.one(evil("swell")), Answer)
    before = running(hurried).pid
    for _ in range(4):
        assert isinstance(hurried.one(evil("swell")), Answer)
    assert running(hurried).pid != before


def test_a_child_is_replaced_after_its_share_of_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    original = process_module.Process.__init__

    def counting(self: object, *values: object) -> None:
        started.append(1)
        original(self, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(process_module.Process, "__init__", counting)
    child = Sandbox(FRAME_BYTES, Limits(videos=2))
    assert all(isinstance(answer, Answer) for answer in child.run([good() for _ in range(5)]))
    child.close()
    assert len(started) == 3


@pytest.mark.parametrize(("op", "fate"), [("crash", "signal 11"), ("exit", "exit code 3")])
def test_a_crash_is_told_with_its_signal_and_the_next_video_is_fine(child: Sandbox, op: str, fate: str) -> None:
    error = outcome(child, op)
    assert error.code == "crash"
    assert error.reason.startswith("killed its decoder (")
    assert fate in error.reason
    assert works(child)


def test_bytes_that_were_not_supplied_are_asked_for() -> None:
    asked: list[tuple[int, int]] = []

    def fetch(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return GOOD[start:stop]

    child = Sandbox(FRAME_BYTES, Limits())
    answer = child.one(decode_job(Video(len(GOOD), ((0, GOOD[:100]),), fetch), REQUEST))
    assert isinstance(answer, Answer)
    assert asked == [(100, len(GOOD))]
    child.close()


@pytest.mark.parametrize("error", [StorageFault("the store is away"), DataError("refused the credentials")])
def test_a_store_that_is_away_or_refuses_says_nothing_about_a_video(error: Exception) -> None:
    child = Sandbox(FRAME_BYTES, Limits())
    assert works(child)
    process = running(child)
    with pytest.raises(type(error), match=str(error)):
        list(child.run([good(), asking(error), good()]))
    assert process.poll() is not None  # it was in the middle of a job
    assert works(child)
    child.close()


def test_an_object_that_is_gone_is_a_verdict_and_the_next_video_is_fine() -> None:
    child = Sandbox(FRAME_BYTES, Limits())
    found = list(child.run([good(), asking(MissingError("there is no such object")), good()]))
    assert [type(answer) for answer in found] == [Answer, DecodeError, Answer]
    assert isinstance(found[1], DecodeError)
    assert (found[1].code, found[1].reason) == ("storage", "there is no such object")
    child.close()


@pytest.mark.slow
def test_time_that_storage_takes_is_not_the_videos(child: Sandbox) -> None:
    def slow(start: int, stop: int) -> bytes:
        time.sleep(1.5)  # the deadline is 1 s
        return GOOD[start:stop]

    assert works(child)
    process = running(child)
    assert isinstance(child.one(decode_job(Video(len(GOOD), (), slow), REQUEST)), Answer)
    assert process.poll() is None  # no second chance was needed


def test_a_caller_that_stops_listening_does_not_get_old_answers_later() -> None:
    child = Sandbox(FRAME_BYTES, Limits())
    answers = child.run([good(), decode_job(video(b"no video"), REQUEST)])
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert works(child)
    child.close()


def test_children_do_not_outlive_their_sandbox() -> None:
    child = Sandbox(FRAME_BYTES, Limits())
    child.one(good())
    process = running(child)
    child.close()
    assert process.poll() is not None
