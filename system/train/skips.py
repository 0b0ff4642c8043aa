"""The steps of a run that are not trained: they diverged, and the run went back behind them.

`skips.json` in the run's folder names them with the reason; their slots are skipped by every later attempt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from system import storage
from system.data.assemble import plan_for
from system.data.index import Index
from system.errors import TubeletError
from system.recipe import Recipe

# Videos of a step that a line names.
NAMED = 16


def merged(before: Mapping[int, str], more: Mapping[int, str]) -> dict[int, str]:
    """Return all steps in order; the first reason of a step stays."""
    return dict(sorted({**more, **before}.items()))


def skips_uri(run_uri: str) -> str:
    """Return the place of a run's skipped steps."""
    return storage.join(run_uri, "skips.json")


def read_skips(run_uri: str) -> dict[int, str]:
    """Return the steps that a run skips, with the reasons."""
    try:
        found = json.loads(storage.read(skips_uri(run_uri)))
    except storage.MissingError:
        return {}
    return {int(step): str(reason) for step, reason in found["steps"].items()}


def extend_skips(run_uri: str, more: Mapping[int, str]) -> dict[int, str]:
    """Add steps to those that a run skips, and return all of them."""
    steps = merged(read_skips(run_uri), more)
    text = json.dumps({"steps": {str(step): reason for step, reason in steps.items()}}, indent=1)
    storage.write(skips_uri(run_uri), text.encode())
    return steps


def videos_of(recipe: Recipe, index: Index, step: int) -> list[str]:
    """Return the names of a step's videos in the order of its slots; of many the first, and how many more."""
    first = step * recipe.slots_per_step
    videos = plan_for(recipe, index).videos(first, first + recipe.slots_per_step).tolist()
    names = [index.row(video).name for video in videos[:NAMED]]
    more = len(videos) - len(names)
    return [*names, f"and {more} more"] if more else names


def told_videos(recipe: Recipe, index: Index, step: int) -> str:
    """Return the names of a step's videos for a line, which is no reason to fail: without the index it says so."""
    try:
        return ", ".join(videos_of(recipe, index, step))
    except TubeletError as error:
        return f"not to be read now: {error}"


def skip_lines(recipe: Recipe, index: Index, steps: Mapping[int, str]) -> list[str]:
    """Return what a user is told about steps that are skipped from now on."""
    size = recipe.slots_per_step
    return [
        f"step {step} is skipped from now on, slots {step * size} to {(step + 1) * size - 1}: {reason};"
        f" its videos: {told_videos(recipe, index, step)}"
        for step, reason in sorted(steps.items())
    ]
