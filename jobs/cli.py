"""What every job shares: arguments, how it talks, and its exit codes.

0 done, 2 user error, 1 system fault, 130 interrupted, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from jobs import terminal
from system import logs
from system.errors import TubeletError

# What the losses of recipes should be: bands that were measured.
REFERENCES = Path(__file__).parent / "recipes" / "references.json"
# What is no terminal gets a progress line every so often, seconds; TUBELET_PROGRESS_S says otherwise.
PLAIN_EVERY_S = 10.0
# Exit code of a job that a SIGTERM has ended, as a shell would say it.
STOPPED = 128 + signal.SIGTERM


def say(line: str) -> None:
    """Tell the user a line."""
    print(logs.told(line), flush=True)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors end with exit code 2 and one sentence."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def parser(name: str, description: str) -> Parser:
    """Return a parser for `python -m jobs.<name>`."""
    return Parser(prog=f"python -m jobs.{name}", description=description)


def recipe_arguments(arguments: Parser) -> None:
    """Add `--recipe FILE section.field=value ...`."""
    arguments.add_argument("--recipe", required=True, help="YAML file, such as jobs/recipes/smoke.yaml")
    arguments.add_argument("overrides", nargs="*", metavar="section.field=value", help="laid over the recipe")


def amount(text: str) -> float:
    """Return an argument that is a number of 0 or more."""
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"needs a number of 0 or more, got {text}")
    return value


def positive(text: str) -> float:
    """Return an argument that is a number above 0."""
    value = amount(text)
    if not value:
        raise argparse.ArgumentTypeError(f"needs a number above 0, got {text}")
    return value


def count(text: str) -> int:
    """Return an argument that is a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 is wanted, got {text}")
    return int(text)


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Let a SIGTERM end the process as an exception would, so that what is open is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(_number: int, _frame: Any) -> None:
        sys.exit(STOPPED)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a job and turn its errors into a sentence and an exit code."""
    logs.begin(logs.Context(logs.style_of("auto")))
    try:
        with _sigterm_unwinds():
            code = main(sys.argv[1:] if arguments is None else arguments)
    except TubeletError as error:
        sentence = logs.told(f"{type(error).__name__}: {error}", logging.ERROR, error=type(error).__name__)
        print(sentence, file=sys.stderr, flush=True)
        if os.environ.get("TUBELET_TRACEBACK"):
            traceback.print_exc()
        code = error.exit_code
    except SystemExit as ended:
        if ended.code not in (STOPPED, int(signal.SIGTERM)):  # Ray's own handler exits with the signal's number
            raise
        print(logs.told("stopped by SIGTERM", logging.WARNING), file=sys.stderr, flush=True)
        code = STOPPED
    except KeyboardInterrupt:
        print(logs.told("interrupted", logging.WARNING), file=sys.stderr, flush=True)
        code = 130
    sys.exit(code)


class ProgressLine:
    """How far a job is: written over in place on a terminal, and a plain line every ten seconds elsewhere.

    On a terminal that can move its cursor it is the view of several lines, where one is given; what is told in between
    goes above it. Any thread may call it.
    """

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty() and logs.context().style == "text"
        self._moves = self._terminal and terminal.can_move(os.environ)
        self._every_s = float(os.environ.get("TUBELET_PROGRESS_S") or PLAIN_EVERY_S)
        self._told, self._open = 0.0, False
        self._drawn: list[str] = []  # of the view, as it stands above the cursor
        self._turn = threading.RLock()

    def show(self, line: str, *, view: terminal.View | None = None, last: bool = False, **fields: Any) -> None:
        """Show the newest state; the fields are for who reads records."""
        with self._turn:
            if view is not None and self.refresh(view):
                return
            if self._terminal:
                width = terminal.size()[0] - 1
                print("\r" + line[:width].ljust(width), end="\n" if last else "", flush=True)
                self._open = not last
            elif last or time.monotonic() - self._told > self._every_s:
                self._told = time.monotonic()
                print(logs.told(line, **fields), flush=True)

    def refresh(self, view: terminal.View) -> bool:
        """Draw the view anew, if this is a terminal with room for it; say whether."""
        with self._turn:
            width, height = terminal.size() if self._moves else (0, 0)
            lines = view(width - 1) if self._moves else []  # a full line's end may be erased with what follows it
            if not lines or len(lines) >= height:
                return False
            if self._open:  # there was no room for a view until now
                self.end()
            print(terminal.redrawn(self._drawn, lines, width), end="", flush=True)
            self._drawn = lines
            return True

    def between(self, line: str) -> None:
        """Tell a line that is not about progress."""
        with self._turn:
            drawn, self._drawn = self._drawn, []
            if drawn:
                print(terminal.erased(drawn, terminal.size()[0]), end="")
            elif self._open:
                self.end()
            say(line)
            if drawn:
                print(terminal.redrawn([], drawn, terminal.size()[0]), end="", flush=True)
                self._drawn = drawn

    def end(self) -> None:
        """Leave the line, or the view as it stands."""
        with self._turn:
            if self._open:
                print(flush=True)
            self._open, self._drawn = False, []


def duration(seconds: float) -> str:
    """Write a duration as a person would: 1 h 02 min, 3 min 20 s, 45 s."""
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
