"""A capacity plan as a person reads it: the verdict first, then the figures that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from system.planning.capacity import Reencoding, Units
from system.planning.records import Checkpoints, Plan, Way


def told(plan: Plan) -> list[str]:
    """Return all lines: the verdict, then the tables, then what is assumed."""
    interval = [] if plan.checkpoints is None else [_interval(plan.checkpoints)]
    tables = [*stage_table(plan), "", *way_table(plan)]
    return [*verdict(plan), "", *tables, "", *interval, _memory(plan), "assumed:", *(f"  {s}" for s in plan.assumed)]


def verdict(plan: Plan) -> list[str]:
    """Return what a person should do, a sentence or two each."""
    lines = [
        f"{plan.run}: {plan.clips:,} clips, {plan.epochs:.4g} epochs of {plan.videos:,} videos, on"
        f" {plan.ways[0].units.workers} x {plan.worker}",
        _limit(plan),
        _cores(plan),
        _reencoding(plan),
        _hours_of(plan),
    ]
    if plan.checkpoints is not None:
        lines.append(_checkpoints(plan.checkpoints))
    return lines


def hours(value: float) -> str:
    """Write hours as a person would: 42 s, 35 min, 12.3 h."""
    if not isfinite(value):
        return "without end"
    if value < 1:
        return f"{60 * value:.3g} min" if value >= 1 / 60 else f"{3600 * value:.3g} s"
    return f"{value:.3g} h" if value < 100 else f"{value:,.0f} h"


def _limit(plan: Plan) -> str:
    now, (*feeding, step) = plan.ways[0], plan.stages
    assert step.clips_per_s is not None
    if now.limit == "step":
        others = [(stage.clips_per_s, stage.stage) for stage in feeding if stage.clips_per_s]
        rate, stage = min(others)
        return (
            f"the step limits the run, as it should: {_rate(now.clips_per_s)} clips/s; {stage}, the next, could give"
            f" {_rate(rate)}"
        )
    return (
        f"{now.limit} limits the run: it gives {_rate(now.clips_per_s)} clips/s, and the workers would take"
        f" {_rate(step.clips_per_s)}, so they wait {1 - now.clips_per_s / step.clips_per_s:.0%} of the time"
    )


def _cores(plan: Plan) -> str:
    own, wanted = plan.ways[0].units, plan.ways[1].units
    changes = ", ".join(_changes(own, wanted)) or "as the recipe has it"
    what = "decode" if own.mask_actors else "decode and mask"
    return (
        f"each worker wants {plan.cores_per_worker:.3g} cores that {what}, {plan.margin:.0%} to spare among them:"
        f" {changes}"
    )


def _changes(own: Units, wanted: Units) -> list[str]:
    """Return the fields that differ, as a recipe has them."""
    named = (
        ("resources.read_actors", own.read_actors, wanted.read_actors),
        ("resources.decode_actors", own.decode_actors, wanted.decode_actors),
        ("resources.mask.actors", own.mask_actors, wanted.mask_actors),
    )
    return [f"{name}={count} (the recipe: {was})" for name, was, count in named if was != count]


def _reencoding(plan: Plan) -> str:
    made = plan.reencoding
    if not isinstance(made, Reencoding):
        return f"re-encoding: {made}"
    assert plan.reencoded is not None
    faster = f"a core then decodes {plan.reencoded.faster:.2g} times as many clips"
    if made.break_even_epochs is None:
        return f"re-encoding does not pay: {faster}"
    terms = (
        f"{hours(made.once_hours)} of a core once, {hours(made.saved_hours / made.epochs)} less in each epoch: even"
        f" after {made.break_even_epochs:.3g} of {made.epochs:.4g} epochs"
    )
    if not made.pays:
        return f"re-encoding does not pay in this run: {terms}"
    return f"re-encoding pays ({faster}): {terms}"


def _hours_of(plan: Plan) -> str:
    parts = [f"{hours(way.hours)} {way.name}{_price(way)}" for way in plan.ways]
    text = "; ".join(parts)
    if plan.ways[0].cost is None:
        text += "; --price-gpu-hour and --price-cpu-hour tell the cost"
    return text


def _price(way: Way) -> str:
    return "" if way.cost is None else f" for {way.cost:,.2f}"


def _checkpoints(made: Checkpoints) -> str:
    return (
        f"checkpoint.every_steps={made.every_steps} once it is balanced: with a preemption each"
        f" {hours(made.between_s / 3600)} they, restarts and lost work add {_share(made.overhead)} to the run;"
        f" {made.own_every_steps} of the recipe"
        f" {_share(made.own_overhead)}"
    )


def _interval(made: Checkpoints) -> str:
    """Say what the interval follows from."""
    return (
        f"checkpoints: each {_seconds(made.daly_s)} of work by Daly, {_seconds(made.young_s)} by Young; the training"
        f" stands still for {_seconds(made.stall_s)}, one counts after {_seconds(made.write_s)}, a restart takes"
        f" {_seconds(made.restart_s)}"
    )


def _share(value: float) -> str:
    return f"{value:.1%}" if isfinite(value) else "so much that the run never ends"


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def _rate(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def stage_table(plan: Plan) -> list[str]:
    """Return each stage: what a unit of it does, how many there are, and how that was found."""
    rows: list[tuple[str, ...]] = [("stage", "a unit", "clips/s of it", "units", "clips/s of all", "")]
    for line in plan.stages:
        each = "?" if line.rate is None else _rate(line.rate.clips_per_s)
        if line.rate is not None and line.rate.error:
            each += f" +-{line.rate.error:.0%}"
        how = "needs a GPU to be measured, taken as no limit" if line.rate is None else line.rate.how
        if line.rate is not None and not line.rate.measured:
            how = f"assumed: {how}"
        rows.append((line.stage, line.unit, each, str(line.units), _rate(line.clips_per_s), how))
    return _columns(rows)


def way_table(plan: Plan) -> list[str]:
    """Return each way to run it."""
    rows: list[tuple[str, ...]] = [("", "decode cores", "limit", "clips/s", "hours", "GPU hours", "core hours", "cost")]
    for way in plan.ways:
        price = "" if way.cost is None else f"{way.cost:,.2f}"
        amounts = [f"{value:,.4g}" if isfinite(value) else "-" for value in (way.hours, way.gpu_hours, way.core_hours)]
        rows.append((way.name, str(way.units.decode_actors), way.limit, _rate(way.clips_per_s), *amounts, price))
    return _columns(rows)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _memory(plan: Plan) -> str:
    device = "" if plan.device_bytes is None else f"; {plan.device_bytes / 2**30:.3g} GiB of the GPU's in a step"
    return (
        f"memory: {plan.lookahead_bytes / 1e9:.3g} GB of the object store for the look-ahead, at most"
        f" {plan.store_bytes / 1e9:.3g} GB for the stream ({plan.blocks_per_s:.3g} blocks/s); a checkpoint has"
        f" {plan.state_bytes / 1e9:.3g} GB{device}"
    )
