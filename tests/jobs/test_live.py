"""The view of a run: pure lines of records made by hand, and what a terminal shows of a stream of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.live import live_line, live_view, painted, state_of, view
from jobs.submit import PROGRESS
from jobs.terminal import bare, can_move, redrawn, rows_of
from jobs.terminal_picture import shown
from system.report.terminal_picture import Screen, svg
from system.train.live import Live
from tests.conftest import REPOSITORY
from tests.train.moments import STARTING, TRAINING

CLOSE_TO_LIMITS = replace(
    TRAINING, step=10**9, steps=10**9 + 1, stop=10**9, loss=1.2345e-30, job_s=1e7, run_s=1e8, silent_s=1e6
)


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("live", [STARTING, TRAINING, CLOSE_TO_LIMITS])
def test_no_line_of_a_view_is_wider_than_its_terminal_and_nothing_is_missing(live: Live, width: int) -> None:
    lines = view(live, width)
    assert max(map(len, lines)) <= width
    labels = [line.split(" ")[0] for line in lines[1:] if not line.startswith(" ")]
    assert labels == ["step", "loss", "speed", "stages", "workers", "saved", "time", "cost"]
    assert [bare(line) for line in painted(lines)] == lines


def test_a_view_says_all_that_there_is_to_say() -> None:
    text = "\n".join(view(TRAINING, 120))
    for says in (
        "48/120",
        "1 min 38 s left",
        "loss     0.03125   gradient 0.4512   learning rate 0.0012",
        "46.9 clips/s   step 1.37 s   data wait 1%   MFU -",
        "decode: 3 queued, 2 of 4 busy   mask: 0 queued, 1 of 1 busy   train: 4 ready",
        "3 (1 to 4 wanted)   restarts 1   bad videos 7",
        "step 40, 22 s ago",
        "24.48 so far   0.54 to go   19.58 an hour",
        "videomae-vitb-k400",
    ):
        assert says in text


def test_what_is_not_known_yet_is_a_dash() -> None:
    lines = view(STARTING, 80)
    assert lines[0].endswith("starting")
    assert lines[2:5] == [
        "loss     -   gradient -   learning rate -",
        "speed    - clips/s   step -   data wait -   MFU -",
        "stages   -",
    ]
    assert lines[-1] == "cost     -"
    assert not any(word in "\n".join(lines) for word in ("None", "nan"))


def test_a_run_without_a_step_for_long_says_so() -> None:
    assert state_of(TRAINING) == "training"
    assert state_of(replace(TRAINING, silent_s=95.0)) == "no step for 1 min 35 s"
    assert state_of(replace(TRAINING, silent_s=95.0, pace_s=60.0)) == "training"
    assert "\x1b[1;31m" in live_view(replace(TRAINING, silent_s=95.0), 80)[0]


def test_the_line_for_what_is_no_terminal_is_one_that_jobs_submit_knows() -> None:
    line = live_line(TRAINING)
    assert PROGRESS.match(line)
    assert line.startswith("step 48/120  loss 0.0312  46.9 clips/s  data wait 1%  1 min 38 s left  workers 3")
    assert line.endswith("queued decode 3, mask 0, train 4  restarts 1  saved 22 s ago  cost 24.48, 0.54 to go")
    assert live_line(STARTING) == "step 0/120  loss -  - clips/s  data wait -  - left  workers -  not saved yet"


def test_ansi_is_for_terminals_that_know_it_and_people_who_want_it() -> None:
    assert can_move({"TERM": "xterm"})
    assert not any(map(can_move, [{}, {"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}]))


def test_lines_that_a_narrower_terminal_has_wrapped_are_still_written_over() -> None:
    assert rows_of(["", "x" * 80, "\x1b[1m" + "y" * 81 + "\x1b[0m"], 40) == 1 + 2 + 3
    screen = Screen(40)
    before = ["head", "x" * 75]
    screen.feed("above\n" + redrawn([], before, 40) + redrawn(before, ["new", "lines", "three"], 40))
    assert screen.lines == ["above", "new", "lines", "three", ""]


# As a driver uses it: steps, a line in between, a step, the end.
STREAM = """
from functools import partial
from dataclasses import replace
from jobs.cli import ProgressLine
from jobs.live import live_line, live_view
from system import logs
from tests.train.moments import STARTING, TRAINING
logs.begin(logs.Context(logs.style_of("auto")))
line = ProgressLine()
line.refresh(partial(live_view, STARTING))
for step in (46, 47, 48):
    live = replace(TRAINING, step=step, run="smoke")
    line.show(live_line(live), view=partial(live_view, live), loss=live.loss)
    if step == 47:
        line.between("2 of 1 to 4 workers have room")
line.end()
print("done")
"""


class Raw(Screen):
    """A screen that keeps what it was fed."""

    raw = ""

    def feed(self, text: str) -> None:
        self.raw += text
        super().feed(text)


def on_terminal(columns: int, stream: str = STREAM, **environment: str) -> tuple[list[str], str]:
    screen = Raw(columns)
    told = {"PYTHONPATH": str(REPOSITORY), "NO_COLOR": "", "TUBELET_LOGS": "text", **environment}
    assert shown([sys.executable, "-c", stream], screen, told, lambda _: None) == 0, screen.lines
    return screen.lines, screen.raw


@pytest.mark.parametrize("columns", [40, 100])
def test_on_a_terminal_the_view_is_in_place_below_what_was_told(columns: int) -> None:
    lines, raw = on_terminal(columns)
    expected = view(replace(TRAINING, run="smoke"), columns - 1)
    assert lines == ["2 of 1 to 4 workers have room", *expected, "done", ""]
    assert "\x1b[2m" in raw


# The terminal is made taller between two steps.
TALLER = (
    STREAM.replace("from functools", "import fcntl, struct, sys, termios\nfrom functools")
    .replace(
        "    live = ",
        "    rows = 5 if step == 46 else 40\n"
        "    fcntl.ioctl(sys.stdout, termios.TIOCSWINSZ, struct.pack('4H', rows, 60, 0, 0))\n"
        "    live = ",
    )
    .replace("line.refresh(partial(live_view, STARTING))\n", "")
)


def test_a_view_that_gets_room_begins_below_the_line_that_stood_for_it() -> None:
    lines, _ = on_terminal(60, TALLER)
    assert lines[0].startswith("step 46/120  loss 0.")
    assert "smoke" not in lines[0]
    assert lines[1:] == ["2 of 1 to 4 workers have room", *view(replace(TRAINING, run="smoke"), 59), "done", ""]


@pytest.mark.parametrize("plain", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_plain_terminal_gets_one_line_that_is_written_over_and_no_ansi(plain: dict[str, str]) -> None:
    lines, raw = on_terminal(60, **plain)
    assert "\x1b" not in raw
    assert [line[:20] for line in lines] == [
        "step 47/120  loss 0.",
        "2 of 1 to 4 workers ",
        "step 48/120  loss 0.",
        "done",
        "",
    ]


def test_records_stay_records_on_a_terminal() -> None:
    lines, _ = on_terminal(500, TUBELET_LOGS="json")
    assert [line[:9] for line in lines[:2]] == ['{"time": '] * 2
    assert '"loss": 0.03125' in lines[0]


def test_a_picture_is_one_of_the_screen_and_of_nothing_outside(tmp_path: Path) -> None:
    screen = Screen(80)
    screen.feed("\x1b[1msmoke\x1b[0m  a <b>   c\r\n\x1b[31mred\x1b[0m\n")
    (tmp_path / "picture.svg").write_text(picture := svg(screen.with_head(["$ command"]), "a & b"))
    from xml.etree import ElementTree

    texts = [each.text for each in ElementTree.parse(tmp_path / "picture.svg").iter() if each.tag.endswith("text")]
    assert texts == ["$ command", "smoke", "a <b>", "c", "red"], "viewers make one blank of several"
    assert picture.count("http") == 1, "the name of the format alone"
