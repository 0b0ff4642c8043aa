"""What a child may not do, and what its parent makes of one that lies."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from system.data import process as process_module
from system.data import sandbox as sandbox_module
from system.data.child import ERRORS_BYTES
from system.data.sandbox import Answer, Job, Limits, Sandbox, Video, decode_job
from system.errors import DecodeError, RecipeError
from tests.data.children import FRAME_BYTES, GOOD, REQUEST, child, evil, good, outcome, running, video, works

__all__ = ["child"]


def said(text: str | bytes) -> bytes:
    """Return a message as it goes through the pipe."""
    data = text if isinstance(text, bytes) else text.encode()
    return len(data).to_bytes(4, "little") + bytes(4) + data


def test_a_video_that_wants_too_much_memory_is_refused_alone(child: Sandbox) -> None:
    assert works(child)
    assert outcome(child, "grow").code == "memory"
    assert works(child)


def test_what_a_library_prints_does_not_disturb_the_answers(child: Sandbox) -> None:
    assert isinstance(child.one(evil("print")), Answer)
    assert works(child)


def test_a_child_can_write_no_more_than_its_error_messages(child: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "written"
    answer = child.one(Job(video(b"x"), "write", {"path": str(path)}))
    assert isinstance(answer, DecodeError)
    assert answer.code == "crash"
    assert path.stat().st_size <= ERRORS_BYTES


def test_a_child_sees_no_credentials(child: Sandbox) -> None:
    answer = child.one(evil("environment"))
    assert isinstance(answer, Answer)
    assert not [name for name in answer.values["variables"] if name.startswith("AWS")]


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
