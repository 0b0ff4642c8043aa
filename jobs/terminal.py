"""Lines that are written over in place on a terminal: what is sent to it. Pure, but for asking how large it is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence

# Columns -> the lines of a view, none of them longer.
View = Callable[[int], list[str]]

# What a terminal is that does not say how large it is: columns and rows.
USUAL = (80, 24)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def can_move(environment: Mapping[str, str]) -> bool:
    """Say whether sequences of ANSI may be sent to the terminal: it knows them, and nobody asked for plain text."""
    return environment.get("TERM", "dumb") != "dumb" and not environment.get("NO_COLOR")


def size() -> tuple[int, int]:
    """Return columns and rows of the terminal that stdout is."""
    try:
        columns, rows = os.get_terminal_size()
    except OSError:
        return USUAL
    return columns or USUAL[0], rows or USUAL[1]


def bare(line: str) -> str:
    """Return a line without its colours."""
    return _COLOURS.sub("", line)


def rows_of(lines: Sequence[str], width: int) -> int:
    """Return how many rows lines take on a terminal: one that was made narrower has wrapped them."""
    return sum(max(1, -(-len(bare(line)) // width)) for line in lines)


def erased(before: Sequence[str], width: int) -> str:
    """Return what removes lines that end above the cursor."""
    return f"\x1b[{rows_of(before, width)}A\r\x1b[J" if before else ""


def redrawn(before: Sequence[str], lines: Sequence[str], width: int) -> str:
    """Return what puts lines in the place of others that end above the cursor; what stays the same does not flicker."""
    up = f"\x1b[{rows_of(before, width)}A\r" if before else ""
    # First all lines, then what is left below them: nothing is blank in between.
    return up + "".join(f"{line}\x1b[K\n" for line in lines) + ("\x1b[J" if before else "")
