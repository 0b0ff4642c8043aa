"""The commands of README and docs: lines of their shell blocks, joined where they go on and cut as a shell would."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a command is followed by where several stand in a line.
_NEXT = ("&&", "||", "|", ";", ">", "2>", "<")


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
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def _lines(block: str) -> Iterator[list[str]]:
    """Yield the words of each line; a quotation may go over several."""
    begun = ""
    for line in re.sub(r"\\\n\s*", " ", block).splitlines():
        begun += line
        try:
            words = shlex.split(begun, comments=True)
        except ValueError:  # no closing quotation yet
            begun += "\n"
            continue
        begun = ""
        yield words


def commands_of(page: Path) -> list[Command]:
    """Return the commands of a page's shell blocks, in order."""
    found = []
    for block in _BLOCK.findall(page.read_text()):
        for line in _lines(block):
            words: list[str] = []
            for word in [*line, ";"]:
                if word not in _NEXT:
                    words.append(word)
                    continue
                if words:
                    found.append(Command(str(page.relative_to(REPOSITORY)), tuple(words)))
                words = []
    return found


def all_commands() -> list[Command]:
    """Return the commands of all pages."""
    return [command for page in pages() for command in commands_of(page)]
