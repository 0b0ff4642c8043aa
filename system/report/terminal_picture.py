"""What a terminal shows after a program has written to it, and a picture of that: for documents, and to test views.

Understands what the views here send: text, line breaks, cursor up and left, erasing to the end of line and screen, and
colours. Everything else of ANSI is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# A cell's size and the text's, px; a line of a terminal is about twice as high as a cell is wide.
CELL_W, CELL_H, FONT = 8.4, 18, 14
MARGIN = 16
BACKGROUND, FOREGROUND = "#16181d", "#d7dae0"
# Colours by their SGR numbers.
COLOURS = {31: "#ff6b6b", 32: "#7bd88f", 33: "#ffd166", 36: "#6cc7e0"}
_PART = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b.|[\r\n\b]|[^\x1b\r\n\b]+")
_WORDS = re.compile(r"\S+(?: \S+)*")


@dataclass(frozen=True, slots=True)
class Style:
    """How a character looks."""

    colour: int = 0
    is_bold: bool = False
    is_dim: bool = False


class Screen:
    """A terminal's screen, with what has scrolled off its top.

    Args:
        columns: of the terminal; longer lines are wrapped.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._cells: list[list[tuple[str, Style]]] = [[]]
        self._row = self._column = 0
        self._style = Style()

    def with_head(self, head: Sequence[str], last: int | None = None) -> Screen:
        """Return a screen with other lines on top, and below them the last lines of this one; default: all of them."""
        rows = list(self._cells)
        while rows and not rows[-1]:
            rows.pop()
        new = Screen(self.columns)
        new._cells = [[(character, Style()) for character in line] for line in head]
        new._cells += rows[-last:] if last else rows
        return new

    @property
    def lines(self) -> list[str]:
        """The text of all lines."""
        return ["".join(character for character, _ in row).rstrip() for row in self._cells]

    @property
    def cells(self) -> Sequence[Sequence[tuple[str, Style]]]:
        """All lines, character by character."""
        return self._cells

    def feed(self, text: str) -> None:
        """Take what a program has written."""
        for part in _PART.finditer(text):
            if part[2]:
                self._control(part[1], part[2])
            elif part[0] == "\n":
                self._go(self._row + 1, 0)  # as the terminal's driver has it: a new line begins at the left
            elif part[0] == "\r":
                self._column = 0
            elif part[0] == "\b":
                self._column = max(0, self._column - 1)
            elif not part[0].startswith("\x1b"):
                for character in part[0]:
                    self._put(character)

    def _go(self, row: int, column: int) -> None:
        self._row, self._column = max(0, row), column
        while len(self._cells) <= self._row:
            self._cells.append([])

    def _put(self, character: str) -> None:
        if self._column == self.columns:
            self._go(self._row + 1, 0)
        row = self._cells[self._row]
        row += [(" ", Style())] * (self._column + 1 - len(row))
        row[self._column] = (character, self._style)
        self._column += 1

    def _control(self, numbers: str, what: str) -> None:
        if what == "A":
            self._row = max(0, self._row - int(numbers or 1))
        elif what == "K":
            del self._cells[self._row][self._column :]
        elif what == "J":
            del self._cells[self._row][self._column :]
            del self._cells[self._row + 1 :]
        elif what == "m":
            for number in numbers.split(";"):
                self._style = _styled(self._style, int(number or 0))


def _styled(style: Style, number: int) -> Style:
    if number == 0:
        return Style()
    if number in (1, 2):
        return Style(style.colour, number == 1 or style.is_bold, number == 2 or style.is_dim)
    return Style(number, style.is_bold, style.is_dim) if number in COLOURS else style


def svg(screen: Screen, title: str) -> str:
    """Return a picture of a screen: SVG that needs no font but a monospaced one, and no network.

    Args:
        screen: what is drawn, all of its lines.
        title: for who cannot see it.
    """
    rows = list(screen.cells)
    while rows and not "".join(character for character, _ in rows[-1]).strip():
        rows.pop()
    columns = max((len(row) for row in rows), default=1)
    width, height = round(2 * MARGIN + columns * CELL_W), 2 * MARGIN + len(rows) * CELL_H
    texts = [text for number, row in enumerate(rows) for text in _texts(row, MARGIN + (number + 0.75) * CELL_H)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' role="img" aria-label="{escape(title)}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>',
            f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="{FONT}">',
            *texts,
            "</g>",
            "</svg>\n",
        ]
    )


def _texts(row: Sequence[tuple[str, Style]], y: float) -> list[str]:
    """Return a row's texts, each at its place and of its length, whatever the font.

    One for each stretch of one style without two blanks in a row: viewers make one blank of several.
    """
    out, start = [], 0
    while start < len(row):
        stop, style = start, row[start][1]
        while stop < len(row) and row[stop][1] == style:
            stop += 1
        stretch = "".join(character for character, _ in row[start:stop])
        out += [_text(found[0], start + found.start(), y, style) for found in _WORDS.finditer(stretch)]
        start = stop
    return out


def _text(text: str, column: int, y: float, style: Style) -> str:
    bold = ' font-weight="bold"' if style.is_bold else ""
    dim = ' opacity="0.6"' if style.is_dim else ""
    return (
        f'<text x="{MARGIN + column * CELL_W:.1f}" y="{y:.1f}" textLength="{len(text) * CELL_W:.1f}"'
        f' lengthAdjust="spacingAndGlyphs" fill="{COLOURS.get(style.colour, FOREGROUND)}"{bold}{dim}>'
        f"{escape(text)}</text>"
    )
