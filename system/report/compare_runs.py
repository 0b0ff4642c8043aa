"""Several runs on one page: their curves over each other, their figures, and the recipe fields in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from system.errors import RunError
from system.report import page
from system.report.charts import COLOURS, overlaid
from system.report.markup import element, section, table
from system.report.reference import find_reference
from system.report.run_files import RunFiles
from system.report.run_verdict import judge
from system.report.verdict import Verdict

# What a cell says of a field that a recipe does not have.
NONE = "(none)"


def flat(values: Mapping[str, Any], under: str = "") -> dict[str, str]:
    """Return the fields of a written recipe: section.field -> value as text."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{under}{name}.")
        else:
            found[f"{under}{name}"] = str(value)
    return found


def differences(recipes: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the fields in which recipes differ: (section.field, its value in each), in the order of the first one."""
    flats = [flat(each) for each in recipes]
    names = dict.fromkeys(name for each in flats for name in each)
    rows = [(name, [each.get(name, NONE) for each in flats]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def labels(uris: Sequence[str]) -> list[str]:
    """Return short names that tell runs apart: as many of the last parts of each URI as that takes."""
    parts = [uri.rstrip("/").split("/") for uri in uris]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{uri} ({number})" for number, uri in enumerate(uris, 1)]


def comparison(runs: Sequence[RunFiles], references: Path) -> str:
    """Return the page that compares runs.

    Raises:
        RunError: for fewer than two or more than the page has colours for.
    """
    if not 2 <= len(runs) <= COLOURS:
        raise RunError(f"2 to {COLOURS} runs can be compared on one page, got {len(runs)}; leave some out")
    names = labels([run.uri for run in runs])
    verdicts = [
        judge(run, find_reference(run.recipe, references) if run.recipe is not None else "its recipe cannot be read")
        for run in runs
    ]
    differ = differences([run.values for run in runs])
    curves = overlaid({name: run.metrics for name, run in zip(names, runs, strict=True)})
    head = page.header(
        "Comparison of runs",
        ", ".join(names),
        f"{len(runs)} runs, {len(differ)} fields of their recipes differ.",
        links=page.navigation([("figures", "Figures"), ("curves", "Curves"), ("recipes", "Recipes")]),
    )
    nothing = element("p", "Not a step was logged.", "soft")
    parts = [
        section("figures", "Figures", [_figures(names, verdicts)]),
        section("curves", "Curves", [page.charts(curves) if curves else nothing]),
        section("recipes", "Where the recipes differ", [_recipes(names, differ)]),
    ]
    return page.page(f"Runs compared: {', '.join(names)}", [head, *parts])


def _figures(names: Sequence[str], verdicts: Sequence[Verdict]) -> str:
    """Return each check of the verdicts beside each other; checks stand in one order in all."""
    head = ["", *names]
    rows = [["Verdict", *(verdict.headline for verdict in verdicts)]]
    for number, check in enumerate(verdicts[0].checks):
        rows.append([check.name, *(verdict.checks[number].value for verdict in verdicts)])
    return table(head, rows)


def _recipes(names: Sequence[str], differ: Sequence[tuple[str, list[str]]]) -> str:
    if not differ:
        return element("p", "In no field.", "soft")
    return table(["field", *names], [[name, *values] for name, values in differ])
