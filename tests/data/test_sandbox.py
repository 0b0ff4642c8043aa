"""What one video can do to its decode child, and that it costs the child and a deadline, never the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from system.data import process as process_module
from system.data import sandbox as sandbox_module
from system.data.augment import CropDraw
from system.data.decode import ClipRequest
from system.data.sandbox import Answer, Job, Limits, Sandbox, Video, decode_job
from system.data.synthetic import moving_video
from system.data.wire import receive, send
from system.errors import DataError, DecodeError, RecipeError, StorageFault
from system.storage import MissingError

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
import os, time, ctypes, hashlib, resource, threading
from system.data import child
honest = child._Child._answer
KEPT = []
BEGAN = time.process_time()
def honest_digest():
    while True: hashlib.sha256(bytes(1 << 20))  # lets go of the interpreter
def send_ok(self):
    child.send(self._target, {"ok": True, "rss_mb": 1})
def answer(self, message, payload):
    match message["op"]:
        case "hang": time.sleep(60)
        case "crash": ctypes.string_at(0)
        case "exit": os._exit(3)
        case "spin":
            while time.process_time() - BEGAN < message["until_s"]: pass
        case "spin on threads":
            for _ in range(4): threading.Thread(target=honest_digest, daemon=True).start()
            time.sleep(60)
        case "swell": KEPT.append(os.urandom(64 << 20))
        case "limits":
            return {"cpu": resource.getrlimit(resource.RLIMIT_CPU), "used": time.process_time()}, b""
        case "grow": bytearray(4 << 30)
        case "print": os.write(1, b"noise from a library"); message = {**message, "op": "ok"}
        case "fork": open("/tmp/tubelet-should-not-exist", "wb").write(b"0" * (2 << 20))
        case "say":
            self._target.write(bytes.fromhex(message["raw"])); self._target.flush(); time.sleep(60)
        case "deaf": send_ok(self); time.sleep(60)
        case "greedy":
            while True: self._fetch(0, 1)
        case "environment": return {"variables": sorted(os.environ)}, b""
    return ({"ok": True}, b"") if message["op"] in ("ok", "spin", "swell") else honest(self, message, payload)
child._Child._answer = answer
child.main()
"""
    )
    monkeypatch.setattr(process_module, "CHILD", [str(script)])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for children")
    made = Sandbox(FRAME_BYTES, Limits(deadline_s=1.0, memory_mb=2048))
    yield made
    made.close()


@pytest.fixture
def hurried(child: Sandbox) -> Iterator[Sandbox]:
    """The same with a long deadline and hardly any CPU time."""
    made = Sandbox(FRAME_BYTES, Limits(deadline_s=60.0, memory_mb=2048, videos=10, rss_mb=256, cpu_s=0.1))
    yield made
    made.close()


def outcome(child: Sandbox, op: str) -> DecodeError:
    answer = child.one(evil(op))
    assert isinstance(answer, DecodeError)
    return answer


def works(child: Sandbox) -> bool:
    answer = child.one(good())
    return isinstance(answer, Answer) and answer.frames is not None and answer.frames.shape == REQUEST.shape()


def asking(error: Exception) -> Job:
    """A job whose bytes are not at hand, and cannot be had."""

    def broken(start: int, stop: int) -> bytes:
        raise error

    return decode_job(Video(len(GOOD), (), broken), REQUEST)


def running(child: Sandbox) -> subprocess.Popen[bytes]:
    assert child._child is not None
    return child._child._process


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


@pytest.mark.parametrize(("op", "fate"), [("crash", "signal 11"), ("exit", "exit code 3")])
def test_a_crash_is_told_with_its_signal_and_the_next_video_is_fine(child: Sandbox, op: str, fate: str) -> None:
    error = outcome(child, op)
    assert error.code == "crash"
    assert error.reason.startswith("killed its decoder (")
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
    original = process_module.Process.__init__

    def counting(self: object, *values: object) -> None:
        started.append(1)
        original(self, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(process_module.Process, "__init__", counting)
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


def test_a_caller_that_stops_listening_does_not_get_old_answers_later() -> None:
    child = Sandbox(FRAME_BYTES, Limits())
    answers = child.run([good(), decode_job(video(b"no video"), REQUEST)])
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert works(child)
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


def test_a_decoder_that_cannot_be_loaded_stops_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tmp_path / "torchcodec" / "__init__.py"  # whether or not it is installed here
    hidden.parent.mkdir()
    hidden.write_text('raise ImportError("not here")')
    environment = process_module._environment()
    places = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    monkeypatch.setattr(process_module, "_environment", lambda: {**environment, "PYTHONPATH": places})
    child = Sandbox(FRAME_BYTES, Limits())
    with pytest.raises(RecipeError, match=r"data.decoder=torchcodec cannot be loaded"):
        child.one(decode_job(video(GOOD), replace(REQUEST, decoder="torchcodec")))
    assert works(child)
    child.close()


def test_a_child_that_lies_about_a_decoder_stops_nothing(child: Sandbox) -> None:
    raw = said('{"rss_mb": 1, "not_loaded": true}').hex()
    answer = child.one(replace(good(), op="say", values={"raw": raw}, decoder="pyav"))
    assert isinstance(answer, DecodeError)
    assert answer.code == "crash"


def said(text: str | bytes) -> bytes:
    """Return a message as it goes through the pipe."""
    data = text if isinstance(text, bytes) else text.encode()
    return len(data).to_bytes(4, "little") + bytes(4) + data


@pytest.mark.parametrize(
    "raw",
    [
        said('{"ok": true}'),
        said('{"ok": true, "rss_mb": NaN}'),
        said('{"ok": true, "rss_mb": {}}'),
        said('{"need": null}'),
        said('{"need": [0]}'),
        said('{"need": ["0", "1"]}'),
        said('{"need": [-1, 1]}'),
        said('{"need": [1, 1]}'),
        said('{"need": [0, 1000000000]}'),
        said('{"rss_mb": 1, "shape": [1, 4, 3200, 3200, 3]}'),
        said('{"rss_mb": 1, "shape": "1"}'),
        said('{"rss_mb": 1}'),
        said('{"rss_mb": 1, "error": "storage", "reason": "a word of mine"}'),
        said('{"rss_mb": 1, "error": ["open"], "reason": ""}'),
        said('{"rss_mb": 1, "not_loaded": true}'),
        said("[" * 200_000),
        said(b"\xff\xfe"),
        said("[1]"),
        b"\xff" * 8,
        (2).to_bytes(4, "little") + b"\xff\xff\xff\x7f{}",
    ],
)
def test_a_child_that_talks_nonsense_has_crashed(child: Sandbox, raw: bytes) -> None:
    answer = child.one(replace(good(), op="say", values={"raw": raw.hex()}))
    assert isinstance(answer, DecodeError)
    assert answer.code == "crash"
    assert "answers out of order" in answer.reason
    assert works(child)


def test_a_child_cannot_make_its_parent_hold_a_whole_video(child: Sandbox) -> None:
    raw = said('{"need": [0, 1073741824]}').hex()
    answer = child.one(Job(Video(1 << 30, (), lambda start, stop: bytes(stop - start)), "say", {"raw": raw}))
    assert isinstance(answer, DecodeError)
    assert answer.code == "crash"


@pytest.mark.slow
def test_a_child_that_says_half_a_word_costs_a_deadline(child: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert works(child)
    monkeypatch.setattr(sandbox_module, "START_S", 0.5)
    monkeypatch.setattr(sandbox_module, "SECOND_CHANCE", 1)
    for raw in (b"\x10", said("{}")[:-1]):
        answer = child.one(Job(video(b"x"), "say", {"raw": raw.hex()}))
        assert isinstance(answer, DecodeError)
        assert answer.code == "deadline"


@pytest.mark.slow
def test_a_child_that_reads_nothing_more_costs_a_deadline(child: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert works(child)
    monkeypatch.setattr(sandbox_module, "START_S", 0.5)
    monkeypatch.setattr(sandbox_module, "SECOND_CHANCE", 1)
    big = decode_job(video(GOOD + bytes(4 << 20)), REQUEST)  # more than a pipe holds
    first, second = child.run([Job(video(b"x"), "deaf", {}), big])
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)  # by the second chance, in another child


def test_there_is_an_end_to_a_childs_questions(child: Sandbox) -> None:
    assert outcome(child, "greedy").code == "crash"
    assert works(child)


def test_a_child_cannot_shorten_the_memory_that_its_parent_reads() -> None:
    child = Sandbox(FRAME_BYTES, Limits())
    assert works(child)
    path = Path(f"/proc/{running(child).pid}/fd")
    shared = next(each for each in path.iterdir() if "tubelet-frames" in str(each.readlink()))
    with shared.open("r+b") as file, pytest.raises(PermissionError):
        file.truncate(0)
    child.close()


def test_children_do_not_outlive_their_sandbox() -> None:
    child = Sandbox(FRAME_BYTES, Limits())
    child.one(good())
    process = running(child)
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
    ends: list[tuple[bytes, type[Exception]]] = [(b"", EOFError), (b"\x05\x00", EOFError), (b"\xff" * 8, ValueError)]
    for data, error in ends:
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        with os.fdopen(read, "rb") as source, pytest.raises(error):
            receive(source)
