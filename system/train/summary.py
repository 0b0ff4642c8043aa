"""How a run stands, in plain values: summary.json, written at the end of every job that trained."""

from __future__ import annotations

import json
import time
from typing import Any

from system import storage
from system.data.dataset import run_uri
from system.data.index import read_rejected
from system.recipe import Recipe
from system.train.goodput import Account, cost_of
from system.train.launch import RunState
from system.train.planned import compared
from system.train.probed import read_probes, standing_of
from system.train.telemetry import read_metrics

# Bad videos that a summary names; all of them are in quarantine.jsonl and beside the index.
NAMED = 20


def write_summary(
    recipe: Recipe,
    state: RunState,
    began: float,
    outputs: dict[str, str],
    spent: Account,
    *,
    told_to_stop: bool,
    whole: Account | None = None,
) -> dict[str, Any]:
    """Write summary.json: how the run stands, in plain values.

    Args:
        recipe: of the run.
        state: from `open_run`, after the last attempt.
        began: when this job began, seconds since 1970.
        outputs: places of what was written, by name.
        spent: where this job's time went.
        told_to_stop: the job was ended before the run's stop.
        whole: where the time of all jobs of the run went; default: there was this one.
    """
    folder = run_uri(recipe)
    try:
        rows = read_metrics(folder)
    except storage.MissingError:  # not a step was taken
        rows = []
    rejected = read_rejected(state.index.uri)
    seconds = [row["step_s"] for row in rows]
    summary: dict[str, Any] = {
        "run": recipe.run.name,
        "status": "complete" if state.complete else "stopped",
        "step": state.progress.step,
        "steps": state.schedule.total,
        "videos": state.index.num_videos,
        "clips": state.progress.slots * recipe.data.views,
        "loss_first": _mean([row["loss"] for row in rows[:5] if row["loss"] is not None]),
        "loss_last": _mean([row["loss"] for row in rows[-5:] if row["loss"] is not None]),
        "clips_per_s": recipe.train.global_batch / sorted(seconds)[len(seconds) // 2] if seconds else None,
        "data_wait": _mean([row["data_wait"] for row in rows[1:]] or [0.0]),
        "job_s": time.time() - began,
        "told_to_stop": told_to_stop,
        "cost": _cost(recipe, spent, whole or spent),
        "goodput_ms": {"whole": spent.whole, **spent.parts, "idle_was": dict(spent.idle)},
        "rejected_at_indexing": [{"name": bad.name, "reason": bad.reason} for bad in rejected[:NAMED]],
        "num_rejected_at_indexing": len(rejected),
        "quarantined": {
            state.index.row(video).name: reason
            for video, (_, reason) in list(state.progress.quarantine.items())[:NAMED]
        },
        "num_quarantined": len(state.progress.quarantine),
        "slots_substituted": state.progress.substituted,
        "slots_skipped": state.progress.skipped,
        "slots_fallback": state.progress.fallback,
        "motion_fallback": recipe.motion.fallback,
        "probe": standing_of(read_probes(folder)),
        "outputs": outputs,
    }
    summary["plan"] = compared(folder, recipe, {**summary, "run_s": (whole or spent).whole / 1000})
    storage.write(storage.join(folder, "summary.json"), json.dumps(summary, indent=1).encode())
    return summary


def _cost(recipe: Recipe, job: Account, run: Account) -> dict[str, float] | None:
    price = recipe.telemetry.price_per_hour
    if price is None:
        return None
    return {"price_per_hour": price, "job": cost_of(job, price), "run": cost_of(run, price)}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
