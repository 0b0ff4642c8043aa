from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from jobs.cli import ProgressLine, say
from system import logs
from system.logs import Context


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before, handlers, propagate = logs.context(), logs.LOGGER.handlers, logs.LOGGER.propagate
    yield
    logs.begin(before)
    logs.LOGGER.handlers, logs.LOGGER.propagate = handlers, propagate


def test_words_to_a_person_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    logs.begin(Context("text", "smoke"))
    say("starting: smoke")
    assert capsys.readouterr().out == "starting: smoke\n"


def test_records_say_run_attempt_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    logs.begin(Context("json", "smoke"))
    logs.at(attempt=3)
    logs.at(step=12)
    say("a line\nof two")
    found = json.loads(capsys.readouterr().out)
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "info",
        "message": "a line\nof two",
        "run": "smoke",
        "role": "driver",
        "attempt": 3,
        "step": 12,
    }


def test_progress_is_a_record_with_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    logs.begin(Context("json", "smoke"))
    ProgressLine().show("step 1/8  loss 0.5", loss=0.5, grad_norm=float("nan"))
    found = json.loads(capsys.readouterr().out)
    assert (found["message"], found["loss"], found["grad_norm"]) == ("step 1/8  loss 0.5", 0.5, None)


def test_a_rank_logs_its_number_in_both_styles(capsys: pytest.CaptureFixture[str]) -> None:
    logs.log_to_stderr(Context("text", "smoke", "rank", rank=0, attempt=2, step=7))
    logs.log("a video cannot be read", logging.WARNING, code="corrupt")
    logs.log_to_stderr(Context("json", "smoke", "rank", rank=0, attempt=2, step=7))
    logs.log("a video cannot be read", logging.WARNING, code="corrupt", step=99, time=0)
    text, record = capsys.readouterr().err.splitlines()
    assert text == "warning run=smoke rank=0 attempt=2 step=7: a video cannot be read"
    found = json.loads(record)
    assert (found["rank"], found["role"], found["code"], found["level"]) == (0, "rank", "corrupt", "warning")
    assert found["step"] == 7, "what a record is about does not replace where it is from"


@pytest.mark.parametrize(
    ("wanted", "environment", "style"),
    [
        ("auto", {}, "text"),
        ("auto", {"TUBELET_LOGS": "json"}, "json"),
        ("text", {"TUBELET_LOGS": "json"}, "text"),
        ("json", {}, "json"),
    ],
)
def test_the_environment_says_how_where_a_recipe_does_not(wanted: str, environment: dict[str, str], style: str) -> None:
    assert logs.style_of(wanted, environment) == style


def test_a_person_who_follows_records_reads_their_messages() -> None:
    logs.begin(Context("json", "smoke"))
    assert logs.heard(logs.told("step 3/8  loss 0.5")) == "step 3/8  loss 0.5"
    assert logs.heard("step 3/8") == "step 3/8"
    assert logs.heard('{"time": broken') == '{"time": broken'
