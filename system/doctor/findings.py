"""What was looked at and what it said, with the reason and the way out where there is something to mend. Pure."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

# All is well; worth to know; costs time or quality; a run would fail.
Severity = Literal["ok", "note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note", "ok")
# Columns of the severity and of the check's name.
_MARK, _NAME = 9, 15
_COLOURS: dict[Severity, str] = {"ok": "\x1b[32m", "note": "\x1b[36m", "warning": "\x1b[33m", "error": "\x1b[1;31m"}
_PLAIN = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        part: `environment`, `data` or `cluster`.
        check: what was looked at, in a word or two.
        severity: how bad it is.
        what: was found.
        why: it matters; "" where all is well.
        fix: a command or a setting that mends it; "" where there is nothing to mend.
    """

    part: str
    check: str
    severity: Severity
    what: str
    why: str = ""
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 if a run would fail, else 0."""
    return int(any(each.severity == "error" for each in findings))


def told(findings: Sequence[Finding], width: int, *, colours: bool = False) -> list[str]:
    """Return the findings as a person reads them, part by part, and what they come to.

    Args:
        findings: in the order in which they are shown.
        width: of the terminal, columns; a command is never broken, whatever its length.
        colours: of ANSI.
    """
    lines: list[str] = []
    for part in dict.fromkeys(each.part for each in findings):
        lines += ["", part]
        for each in findings:
            if each.part == part:
                lines += _lines(each, width, colours=colours)
    return [*lines[1:], "", verdict(findings)]


def verdict(findings: Sequence[Finding]) -> str:
    """Return what the findings come to."""
    counts = Counter(each.severity for each in findings)
    bad = [f"{counts[each]} {each}{'s' * (counts[each] != 1)}" for each in SEVERITIES[:3] if counts[each]]
    if not bad:
        return f"all well: {counts['ok']} checks"
    end = "mend the errors before a run" if counts["error"] else "a run would start"
    return f"{', '.join(bad)}, {counts['ok']} ok: {end}"


def printable(text: str, keep: str = "") -> str:
    """Return a text that does nothing to a terminal: a video's name may have been chosen to steer one.

    Args:
        text: any.
        keep: characters that are meant.
    """
    return "".join(each if each.isprintable() or each in keep else ascii(each)[1:-1] for each in text)


def _lines(finding: Finding, width: int, *, colours: bool) -> list[str]:
    mark = finding.severity if finding.severity in ("ok", "note") else finding.severity.upper()
    head = f"{mark:{_MARK}}{finding.check:{_NAME}}"
    room = max(20, width - len(head) - 2)
    what = _wrapped(printable(finding.what, "\n"), room)
    painted = f"{_COLOURS[finding.severity]}{mark:{_MARK}}{_PLAIN}{finding.check:{_NAME}}" if colours else head
    lines = [f"  {painted}{what[0]}"]
    indent = " " * (2 + len(head))
    lines += [indent + text for text in what[1:]]
    if finding.why:
        lines += [indent + text for text in _wrapped(f"why: {printable(finding.why)}", room)]
    if finding.fix:
        lines.append(f"{indent}fix: {printable(finding.fix)}")
    return lines


def _wrapped(text: str, room: int) -> list[str]:
    """Break a text at its blanks; lines of it stay lines."""
    parts = [textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False) for line in text.split("\n")]
    return [piece for part in parts for piece in part] or [""]
