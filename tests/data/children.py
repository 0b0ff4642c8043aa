"""Decode children for tests: jobs that are well and jobs that are terrible, and a child that can be all of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.data import process as process_module
from system.data.augment import CropDraw
from system.data.decode import ClipRequest
from system.data.sandbox import Answer, Job, Limits, Sandbox, Video, decode_job
from system.data.synthetic import moving_video
from system.errors import DecodeError

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
        case "write": open(message["path"], "wb").write(b"0" * (2 << 20))
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
