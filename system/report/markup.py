"""HTML from Python: every text is escaped on its way in, and only what this file and its callers made is markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence


def escape(text: object) -> str:
    """Write any text so that it is nothing but text, inside of an element or of a quoted attribute.

    Characters that a browser would not show, such as one that turns the direction of writing, are written as their
    numbers: a video's name may hold anything.
    """
    shown = "".join(each if each.isprintable() or each in "\n\t" else f"\\u{ord(each):04x}" for each in str(text))
    return html.escape(shown, quote=True)


def prose(text: object) -> str:
    """Write a text in which commands stand between backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def counted(number: int, what: str) -> str:
    """Write a number of things: 1 restart, 2 restarts."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def element(tag: str, text: object, css: str = "") -> str:
    """Return an element that holds a text, with its commands as code."""
    of = f' class="{escape(css)}"' if css else ""
    return f"<{tag}{of}>{prose(text)}</{tag}>"


def section(name: str, title: str, parts: Iterable[str], lead: str = "") -> str:
    """Return a section of the page, with its heading and a sentence; its parts are markup."""
    told = element("p", lead, "lead") if lead else ""
    return f'<section id="{escape(name)}"><h2>{escape(title)}</h2>{told}{"".join(parts)}</section>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]], css: str = "") -> str:
    """Return a table whose cells are texts; each names its column, so that a phone can show a row as a card."""
    titles = "".join(element("th", each) for each in head)
    lines = []
    for row in rows:
        cells = (f'<td data-name="{escape(name)}">{escape(cell)}</td>' for name, cell in zip(head, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    of = f' class="{escape(css)}"' if css else ""
    return f"<table{of}><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Return names and values as a list of definitions."""
    return f"<dl>{''.join(element('dt', name) + element('dd', value) for name, value in pairs)}</dl>"


def folded(title: str, inside: str) -> str:
    """Return markup that is folded away behind a title."""
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"
