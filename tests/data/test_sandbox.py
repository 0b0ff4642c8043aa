"""What one video can do to its decode child, and that it costs the child and a deadline, never the parent."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.data import sandbox as sandbox_module
from system.data.augment import CropDraw
from system.data.decode import ClipRequest
from system.data.sandbox import Answer, Job, Limits, Sandbox, Video, decode_job
from system.data.synthetic import moving_video
from system.data.wire import receive, send
from system.errors import DecodeError, StorageFault

REQUEST = ClipRequest((0, 4, 8, 12), (CropDraw(0, 4),), 32)
GOOD = moving_video(0, 0, size=(48, 48), num_frames=16)[1]
FRAME_BYTES = 4 * 32 * 32 * 3


def video(data: bytes) -> Video:
    return Video(len(data), ((0, data),), lambda start, stop: data[start:stop])


def good() -> Job:
    return decode_job(video(GOOD), REQUEST)


def evil(op: str) -> Job:
    """A request that makes the child do something terrible: what a hostile video would reach by other means."""
    return Job(video(b"x"), op, {})


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox whose child also knows how to hang, crash, grow and print."""
    script = tmp_path / "evil_child.py"
    script.write_text(
        """
import os, time, ctypes
from system.data import child
honest = child._Child._answer
def answer(self, message, payload):
    match message["op"]:
        case "hang": time.sleep(60)
        case "crash": ctypes.string_at(0)
        case "exit": os._exit(3)
        case "grow": bytearray(4 << 30)
        case "print": os.write(1, b"noise from a library"); message = {**message, "op": "ok"}
        case "fork": open("/tmp/tubelet-should-not-exist", "wb").write(b"0" * (2 << 20))
        case "environment": return {"variables": sorted(os.environ)}, b""
    return ({"ok": True}, b"") if message["op"] == "ok" else honest(self, message, payload)
child._Child._answer = answer
child.main()
"""
    )
    monkeypatch.setattr(sandbox_module, "CHILD", [str(script)])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for children")
    made = Sandbox(FRAME_BYTES, Limits(deadline_s=1.0, memory_mb=2048))
    yield made
    made.close()


def outcome(child: Sandbox, op: str) -> DecodeError:
    answer = child.one(evil(op))
    assert isinstance(answer, DecodeError)
    return answer


def works(child: Sandbox) -> bool:
    answer = child.one(good())
    return isinstance(answer, Answer) and answer.frames is not None and answer.frames.shape == REQUEST.shape()


def test_frames_come_back_through_shared_memory_in_order() -> None:
    child = Sandbox(FRAME_BYTES, Limits())
    jobs = [good(), decode_job(video(b"no video"), REQUEST), good(), good()]
    found = [
        answer.frames.copy() if isinstance(answer, Answer) and answer.frames is not None else None
        for answer in child.run(jobs)
    ]
    child.close()
    assert found[1] is None
    assert all((each == found[0]).all() for each in (found[2], found[3]) if each is not None and found[0] is not None)


def test_a_hanging_video_costs_a_deadline_and_a_second_chance(child: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert works(child)
    monkeypatch.setattr(sandbox_module, "START_S", 1.0)
    began = time.monotonic()
    error = outcome(child, "hang")
    assert error.code == "deadline"
    assert 5 < time.monotonic() - began < 15  # 1 s, then 5 + 1 s alone in a fresh child
    assert works(child)


@pytest.mark.parametrize(("op", "fate"), [("crash", "signal 11"), ("exit", "exit code 3")])
def test_a_crash_is_told_with_its_signal_and_the_next_video_is_fine(child: Sandbox, op: str, fate: str) -> None:
    error = outcome(child, op)
    assert error.code == "crash"
    assert fate in error.reason
    assert works(child)


def test_a_video_that_wants_too_much_memory_is_refused_alone(child: Sandbox) -> None:
    assert works(child)
    assert outcome(child, "grow").code == "memory"
    assert works(child)


def test_what_a_library_prints_does_not_disturb_the_answers(child: Sandbox) -> None:
    assert isinstance(child.one(evil("print")), Answer)
    assert works(child)


def test_a_child_cannot_write_files(child: Sandbox) -> None:
    assert outcome(child, "fork").code == "crash"
    path = Path("/tmp/tubelet-should-not-exist")
    assert not path.exists() or path.stat().st_size <= 1 << 20
    path.unlink(missing_ok=True)


def test_a_child_sees_no_credentials(child: Sandbox) -> None:
    answer = child.one(evil("environment"))
    assert isinstance(answer, Answer)
    assert not [name for name in answer.values["variables"] if name.startswith("AWS")]


def test_a_child_is_replaced_after_its_share_of_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    original = sandbox_module._Process.__init__

    def counting(self: object, *values: object) -> None:
        started.append(1)
        original(self, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(sandbox_module._Process, "__init__", counting)
    child = Sandbox(FRAME_BYTES, Limits(videos=2))
    assert all(isinstance(answer, Answer) for answer in child.run([good() for _ in range(5)]))
    child.close()
    assert len(started) == 3


def test_bytes_that_were_not_supplied_are_asked_for() -> None:
    asked: list[tuple[int, int]] = []

    def fetch(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return GOOD[start:stop]

    child = Sandbox(FRAME_BYTES, Limits())
    answer = child.one(decode_job(Video(len(GOOD), ((0, GOOD[:100]),), fetch), REQUEST))
    assert isinstance(answer, Answer)
    assert asked == [(100, len(GOOD))]

    def broken(start: int, stop: int) -> bytes:
        raise StorageFault("the store is away")

    failed = child.one(decode_job(Video(len(GOOD), (), broken), REQUEST))
    child.close()
    assert isinstance(failed, DecodeError)
    assert (failed.code, failed.reason) == ("storage", "the store is away")


def test_children_do_not_outlive_their_sandbox() -> None:
    child = Sandbox(FRAME_BYTES, Limits())
    child.one(good())
    assert child._child is not None
    process = child._child._process
    child.close()
    assert process.poll() is not None


def test_messages_are_plain_values_and_bytes() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as source, os.fdopen(write, "wb") as target:
        sender = threading.Thread(target=send, args=(target, {"a": [1, "b"]}, b"payload"))
        sender.start()
        assert receive(source) == ({"a": [1, "b"]}, b"payload")
        sender.join()


def test_a_pipe_that_ends_or_talks_nonsense_is_the_end() -> None:
    for data in (b"", b"\x05\x00", b"\xff" * 8):
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        with os.fdopen(read, "rb") as source, pytest.raises(EOFError):
            receive(source)
