"""A run against its capacity plan: `plan.json` in the run's folder, and what the run found of it.

`jobs.plan --keep` writes it. Whatever is wrong with it, no run fails for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from system import storage
from system.errors import TubeletError
from system.recipe import Recipe, fields

PLAN = "plan.json"
VERSION = 1
# Share of their time above which the trainers waited for data: that limited the run then, and not the step.
DATA_LIMITED = 0.05
# Sections, and fields of others, that make a run faster or slower.
SECTIONS = ("data", "motion", "model", "method", "engine", "resources")
FIELDS = ("train.global_batch", "train.micro_batch")
# Where the videos lie is not in it: an index and its folder are the same ones.
LEFT_OUT = ("data.uri",)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe that a plan depends on, as JSON has them."""
    found = {
        name: value
        for name, value, _ in fields(recipe)
        if (name.split(".")[0] in SECTIONS or name in FIELDS) and name not in LEFT_OUT
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


def write_plan(run_uri: str, recipe: Recipe, promise: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """Put a plan into a run's folder and return where it is.

    Args:
        run_uri: the run's folder.
        recipe: that it was made for.
        promise: what is compared: `clips_per_s`, `limit`, `clips` and `hours` of the run, and `worker`.
        plan: all of it.
    """
    uri = storage.join(run_uri, PLAN)
    kept = {"version": VERSION, "promise": promise, "settings": settings_of(recipe), "plan": plan}
    storage.write(uri, json.dumps(kept, indent=1).encode())
    return uri


def compared(run_uri: str, recipe: Recipe, measured: Mapping[str, Any]) -> dict[str, Any] | None:
    """Compare a run with its plan.

    Args:
        run_uri: the run's folder.
        recipe: of the run.
        measured: `clips_per_s` (None: not a step was taken), `data_wait`, `clips` so far and the `run_s` they took.

    Returns:
        Plain values: `planned`, `measured`, `ratio` of the latter to the former, and what `differs` between the two
        recipes; or `unreadable`, why there is none. None: there is no plan.
    """
    try:
        kept = json.loads(storage.read(storage.join(run_uri, PLAN)))
        if kept["version"] != VERSION:
            return {"unreadable": f"{PLAN} is of version {kept['version']}, this is {VERSION}"}
        return _compared(kept["promise"], kept["settings"], settings_of(recipe), measured)
    except storage.MissingError:
        return None
    except (TubeletError, ValueError, ArithmeticError, KeyError, TypeError, AttributeError) as error:
        return {"unreadable": f"{PLAN} cannot be read: {type(error).__name__}: {error}"}


def _compared(
    promise: Mapping[str, Any], settings: Mapping[str, Any], own: Mapping[str, Any], measured: Mapping[str, Any]
) -> dict[str, Any]:
    planned_h = promise["hours"] and promise["hours"] * measured["clips"] / promise["clips"]
    planned = {
        "clips_per_s": float(promise["clips_per_s"]),
        "limit": str(promise["limit"]),
        "hours": planned_h,
        "worker": str(promise["worker"]),
    }
    rate, hours = measured["clips_per_s"], measured["run_s"] / 3600
    limit = "data" if (measured["data_wait"] or 0.0) > DATA_LIMITED else "step"
    found = {"clips_per_s": rate, "limit": limit, "hours": hours, "data_wait": measured["data_wait"]}
    return {
        "planned": planned,
        "measured": found,
        "ratio": {
            "clips_per_s": rate / planned["clips_per_s"] if rate else None,
            "hours": hours / planned_h if planned_h else None,
        },
        "differs": {
            name: [settings.get(name), own.get(name)]
            for name in sorted({*settings, *own})
            if settings.get(name) != own.get(name)
        },
    }


def told_plan(found: Mapping[str, Any] | None) -> list[str]:
    """Return what a user is told of a run against its plan."""
    if found is None:
        return []
    if "unreadable" in found:
        return [f"plan: {found['unreadable']}"]
    planned, measured, ratio = found["planned"], found["measured"], found["ratio"]
    if ratio["clips_per_s"] is None:
        return ["plan: not a step was taken that it could be compared with"]
    lines = [
        f"plan: {planned['clips_per_s']:.4g} clips/s on {planned['worker']}, limited by {planned['limit']}; measured"
        f" {measured['clips_per_s']:.4g}, {ratio['clips_per_s']:.2f} of it, limited by {_limited(measured)}"
    ]
    if ratio["hours"] is not None:
        lines.append(
            f"plan: {planned['hours']:.3g} h for these clips; {measured['hours']:.3g} h were taken,"
            f" {ratio['hours']:.2f} of it, starts and ends of jobs among them"
        )
    differs = [f"{name}={was} (the run: {now})" for name, (was, now) in found["differs"].items()]
    return [*lines, f"plan: it was made for {', '.join(differs)}"] if differs else lines


def _limited(measured: Mapping[str, Any]) -> str:
    if measured["limit"] == "step":
        return "the step"
    return f"data: the trainers waited for it {measured['data_wait']:.0%} of the time"
