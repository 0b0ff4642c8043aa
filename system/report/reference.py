"""What the loss of a recipe should be: bands that were measured, kept beside the recipes in references.json.

    {"smoke": {"overrides": [], "about": "...", "points": [[5, 0.31, 0.41], ...]}}

A point is a step, and the lowest and the highest mean loss of the `WINDOW` steps before it. `jobs.reference` measures.
A run has the reference whose recipe is its own in every field that a resumed run may not change, but for its name,
its place and its seed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from system.errors import TubeletError
from system.recipe import Recipe, dump_recipe, fields, load_recipe, recipe_from
from system.recipe_tree import parse_yaml

# Steps before a point whose mean loss is compared: one batch alone says little.
WINDOW = 5
# A band reaches this share beyond the lowest and the highest mean of the seeds that were measured.
MARGIN = 0.15
# Fields in which runs with one reference may differ.
FREE = ("run.",)
# Fields that a reason names.
NAMED = 3
MEASURE = "`python -m jobs.reference --recipe FILE`, with the recipe of this run, measures one (docs/report.md)"

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """A step, the band of its loss there, what a run has (nan: nothing yet), and the mean of how many steps that is."""

    step: int
    low: float
    high: float
    found: float = float("nan")
    of: int = 0


@dataclass(frozen=True)
class Reference:
    """The band of a recipe: its name, what it was measured on, and its points in order."""

    name: str
    about: str
    points: tuple[Point, ...]

    @property
    def first(self) -> int:
        """The step of its first point."""
        return self.points[0].step


def before(step: int, steps: Values, losses: Values) -> Values:
    """Return the finite losses of the `WINDOW` steps before one, of those that were logged."""
    return losses[(steps >= step - WINDOW) & (steps < step) & np.isfinite(losses)]


def mean_before(step: int, steps: Values, losses: Values) -> float:
    """Return the mean of these losses; nan if none was logged."""
    inside = before(step, steps, losses)
    return float(inside.mean()) if len(inside) else float("nan")


def compare_loss(reference: Reference, steps: Values, losses: Values) -> list[Point]:
    """Return the points that a run has reached, with what it has there."""
    found = [
        replace(each, found=mean_before(each.step, steps, losses), of=len(before(each.step, steps, losses)))
        for each in reference.points
    ]
    return [each for each in found if each.of and steps.max() >= each.step - 1]


def band_of(curves: Sequence[tuple[Values, Values]], at: Sequence[int]) -> list[list[float]]:
    """Return the points of a band from the (steps, losses) of several seeds."""
    points = []
    for step in at:
        means = [mean_before(step, *curve) for curve in curves]
        low, high = min(means) * (1 - MARGIN), max(means) * (1 + MARGIN)
        points.append([step, float(f"{low:.4g}"), float(f"{high:.4g}")])
    return points


def identity_of(recipe: Recipe) -> dict[str, Any]:
    """Return the fields that decide what a recipe's loss is, as JSON has them, with `auto` resolved."""
    resolved = recipe_from(parse_yaml(dump_recipe(recipe), "a recipe"), "a recipe")
    kept = {name: value for name, value, free in fields(resolved) if not free and not name.startswith(FREE)}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return plain


def find_reference(recipe: Recipe, place: Path) -> Reference | str:
    """Return the reference of a recipe, or why there is none.

    Args:
        recipe: of the run.
        place: references.json, beside the recipes that it names.
    """
    try:
        known = json.loads(place.read_text())
    except (OSError, ValueError) as error:
        return f"{place.name} cannot be read: {error}"
    if not isinstance(known, dict):
        return f"{place.name} has no bands by their names"
    own, nearest = identity_of(recipe), ""
    fewest = len(own)
    for name, values in known.items():
        try:
            other = identity_of(load_recipe(place.parent / f"{values['recipe']}.yaml", values["overrides"]))
        except TubeletError:
            continue
        differing = [field for field in sorted({*own, *other}) if own.get(field) != other.get(field)]
        if not differing:
            return Reference(name, values["about"], tuple(Point(int(p[0]), p[1], p[2]) for p in values["points"]))
        if len(differing) < fewest:
            fewest = len(differing)
            nearest = f"; the nearest, {name}, differs in {_told(differing, own)}"
    return f"none was measured for this recipe{nearest}; {MEASURE}"


def _told(names: Sequence[str], own: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name}={own.get(name)}" for name in names[:NAMED])
    return shown + (f" and {len(names) - NAMED} more fields" if len(names) > NAMED else "")
