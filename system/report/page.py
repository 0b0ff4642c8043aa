"""The page around a report's sections: one HTML file that needs nothing else, whatever the texts in it are."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from system.report.curves import Chart, svg
from system.report.markup import element, escape
from system.report.verdict import Check, Status

_HERE = Path(__file__).parent
STATES: dict[Status, str] = {"good": "good", "look": "look at it", "bad": "bad", "open": "not judged"}


def page(title: str, sections: Iterable[str]) -> str:
    """Return the whole file.

    Its policy lets the browser load nothing, and run the one script whose digest it names: text that was taken for
    markup in spite of all would do nothing.
    """
    css, script = ((_HERE / name).read_text(encoding="ascii") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f'<link rel="icon" href="data:,"><title>{escape(title)}</title>',
            f"<style>{css}</style></head><body><main>",
            *sections,
            f"</main><script>{script}</script></body></html>\n",
        ]
    )


def header(eyebrow: str, title: str, why: str, status: Status | str = "", *, numbers: str = "", links: str = "") -> str:
    """Return the head of the page: what it is of, a few words in large, and a sentence."""
    return (
        f'<header><p class="eyebrow">{escape(eyebrow)}</p><h1 class="{escape(status)}">{escape(title)}</h1>'
        f'<p class="why">{escape(why)}</p>{numbers}{links}</header>'
    )


def navigation(sections: Sequence[tuple[str, str]]) -> str:
    """Return links to the sections: (name, title)."""
    links = (f'<a href="#{escape(name)}">{escape(title)}</a>' for name, title in sections)
    return f"<nav>{''.join(links)}</nav>"


def numbers(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a few figures with what they are."""
    tiles = (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in pairs)
    return f'<div class="numbers">{"".join(tiles)}</div>'


def checks(found: Iterable[Check]) -> str:
    """Return the checks of a verdict."""
    parts = []
    for check in found:
        state = f'<span class="state {check.status}">{escape(STATES[check.status])}</span>'
        advice = element("p", check.advice, "do") if check.advice and check.status != "good" else ""
        parts.append(
            f'<div class="check"><b>{escape(check.name)}<br>{state}</b><div>{element("p", check.value)}'
            f"{element('p', check.rule, 'rule')}{advice}</div></div>"
        )
    return f'<div class="checks">{"".join(parts)}</div>'


def card(chart: Chart) -> str:
    """Return a chart with its title, the names of its lines where there are several, and room for what is read."""
    axes = ", ".join(each for each in (chart.unit, "" if chart.x_name == "step" else f"by {chart.x_name}") if each)
    unit = f" <small>{escape(axes)}</small>" if axes else ""
    keys = ""
    if len(chart.lines) > 1:
        items = (f'<li class="k{line.colour}">{escape(line.name)}</li>' for line in chart.lines)
        keys = f'<ul class="keys">{"".join(items)}</ul>'
    return f'<div class="card"><h3>{escape(chart.title)}{unit}</h3>{keys}{svg(chart)}<p class="read"></p></div>'


def charts(found: Iterable[Chart]) -> str:
    """Return charts beside each other."""
    return f'<div class="charts">{"".join(card(chart) for chart in found)}</div>'


def bar(parts: Sequence[tuple[str, int]]) -> str:
    """Return how a whole is divided: a bar, and each part's name and share."""
    whole = max(1, sum(amount for _, amount in parts))
    pieces, items = [], []
    for number, (name, amount) in enumerate(parts):
        share = amount / whole
        if amount:
            title = escape(f"{name} {share:.1%}")
            pieces.append(f'<i class="k{number}" style="width:{100 * share:.3f}%" title="{title}"></i>')
        items.append(f'<li class="k{number}">{escape(name)} {share:.1%}</li>')
    return f'<div class="bar">{"".join(pieces)}</div><ul class="keys">{"".join(items)}</ul>'
