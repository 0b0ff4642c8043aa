"""A report's page as a test reads it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from jobs.cli import REFERENCES
from system.report.run_files import read_run
from system.report.run_report import make_report
from system.report.verdict import Check


class Balanced(HTMLParser):
    """Reads a page: its tags close in the order in which they were opened, and the addresses in them are known."""

    VOID = ("meta", "link", "img", "br", "line", "rect", "circle", "path", "polygon")

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.opened.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.opened.pop() == tag


def read(html: str) -> Balanced:
    found = Balanced()
    found.feed(html)
    assert not found.opened
    return found


def made(folder: Path) -> str:
    return make_report(read_run(str(folder)), "no clips were asked for", REFERENCES).html


def checks_of(folder: Path) -> dict[str, Check]:
    verdict = make_report(read_run(str(folder)), "no clips", REFERENCES).verdict
    return {check.name: check for check in verdict.checks}
