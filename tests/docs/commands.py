"""The commands of README and docs: those of their blocks, joined where they go on and cut as a shell would, and those
that a text names with what they are given."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Of a block that shows a terminal, what was typed.
_TYPED = re.compile(r"^\$ ((?:.*\\\n)*.*)", re.MULTILINE)
_IN_TEXT = re.compile(r"`(python -m jobs\.\w+\s[^`]+)`")
_HEREDOC = re.compile(r"<<'?(\w+)'?\n.*?^\1$", re.MULTILINE | re.DOTALL)
# What a command is followed by where several stand in a line, and what the name of a file follows.
_NEXT, _FILE_NEXT = ("&&", "||", "|", ";"), (">", "2>", "<")
# Words of a shell that stand before a command.
_BEFORE = ("do", "then", "(")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        page: where it stands.
        words: of it.
    """

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"

    @property
    def job(self) -> str | None:
        """The job that it runs, also through `ray job submit ... --`; None: none of ours."""
        for at, word in enumerate(self.words):
            if word == "-m" and self.words[at + 1 : at + 2] and self.words[at + 1].startswith("jobs."):
                return self.words[at + 1].removeprefix("jobs.")
        return None

    @property
    def arguments(self) -> list[str]:
        """What the job is given."""
        return list(self.words[self.words.index(f"jobs.{self.job}") + 1 :])


def pages() -> list[Path]:
    """Return all pages with commands for users."""
    return [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]


def _lines(block: str) -> Iterator[list[str]]:
    """Yield the words of each line; a quotation may go over several."""
    begun = ""
    for line in re.sub(r"\\\n\s*", " ", _HEREDOC.sub("", block)).splitlines():
        begun += line
        try:
            words = shlex.split(begun, comments=True)
        except ValueError:  # no closing quotation yet
            begun += "\n"
            continue
        begun = ""
        yield words


def _commands(words: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield the commands of a line."""
    found: list[str] = []
    ahead = iter([part for word in words for part in _cut(word)])
    for word in ahead:
        if word in _FILE_NEXT:
            next(ahead, None)
        elif word in _NEXT:
            yield tuple(found)
            found = []
        elif found or word not in _BEFORE:
            found.append(word)
    yield tuple(found)


def _cut(word: str) -> list[str]:
    """Take off what a shell does without a space before or after it; a text in quotation marks has spaces."""
    if " " in word:
        return [word]
    head = ["("] if word.startswith("(") else []
    tail = [";"] if word.endswith(";") else []
    return [*head, *filter(None, [word[len(head) : len(word) - len(tail)]]), *tail]


def commands_of(page: Path) -> list[Command]:
    """Return the commands of a page's blocks, in order."""
    found = []
    for language, block in _FENCE.findall(page.read_text()):
        typed = [block] if language == "sh" else _TYPED.findall(block)
        found += [words for text in typed for line in _lines(text) for words in _commands(line) if words]
    return [Command(str(page.relative_to(REPOSITORY)), words) for words in found]


def named_by(page: Path) -> list[Command]:
    """Return the jobs that a page's text names with what they are given."""
    named = _IN_TEXT.findall(_FENCE.sub("", page.read_text()))
    return [Command(str(page.relative_to(REPOSITORY)), tuple(text.split())) for text in named]


def all_commands() -> list[Command]:
    """Return the commands of all pages."""
    return [command for page in pages() for command in [*commands_of(page), *named_by(page)]]


@cache
def help_of(job: str) -> str:
    captured: list[str] = []
    module = importlib.import_module(f"jobs.{job}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("argparse.ArgumentParser._print_message", lambda _self, text, _file=None: captured.append(text))
        with pytest.raises(SystemExit):
            module.main(["--help"])
    return "".join(captured)
