"""The report of a run: one HTML page in its folder, the verdict first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from system import storage
from system.core.clip import TokenGrid
from system.data.index import Index
from system.report import page
from system.report.charts import probe_charts, restarts, run_charts, why_ended
from system.report.gallery import OF_A_CLASSIFIER, Gallery, gallery
from system.report.markup import counted, element, escape, facts, folded, section, table
from system.report.ran_on import ran_on
from system.report.reference import Reference, find_reference
from system.report.run_files import RunFiles
from system.report.run_verdict import judge
from system.report.verdict import Verdict
from system.train.goodput import PARTS

if TYPE_CHECKING:
    from system.report.picture import ShownClip

NAME = "report.html"
# What parts of the time are called here, where their own names say too little.
WORDS = {"restart": "starts, to their first step", "replayed": "steps done again"}
# Rows of a table; the files in the run's folder have all of them.
ROWS = 50


@dataclass(frozen=True, slots=True)
class Made:
    """A report: the page, and its verdict."""

    html: str
    verdict: Verdict


def make_report(run: RunFiles, shown: Gallery | str, references: Path) -> Made:
    """Make the report of a run.

    Args:
        run: what its folder says.
        shown: the gallery, or why there is none.
        references: the file of the recipes' bands.
    """
    reference = find_reference(run.recipe, references) if run.recipe is not None else "its recipe cannot be read"
    verdict = judge(run, reference)
    starts = run.starts
    curves = [*run_charts(run.metrics, starts, run.skips, reference), *probe_charts(run.probes)]
    band = "is the recipe's reference" if isinstance(reference, Reference) else "is missing: its check above says why"
    lead = "Dashed: restarts; tinted: steps that were done again, or time between two starts."
    lead += f" The band of the loss {band}."
    parts = [
        section("verdict", "Verdict", [page.checks(verdict.checks)]),
        section("curves", "Curves", [page.charts(curves)] if len(run.metrics) else [_nothing()], lead),
        section("time", "Where the time went", _time(run)),
        section("restarts", "Restarts", _restarts(run)),
        section("gallery", "What the model sees", *_gallery(shown)),
        section("videos", "Bad videos", _bad_videos(run)),
        section("recipe", "Recipe and environment", _recipe(run)),
        element("footer", f"{run.uri}. Made {_when(time.time())} by `python -m jobs.report`."),
    ]
    names = [("curves", "Curves"), ("time", "Time"), ("restarts", "Restarts"), ("gallery", "Gallery")]
    links = page.navigation([*names, ("videos", "Bad videos"), ("recipe", "Recipe")])
    head = page.header(
        f"Run report: {run.name}",
        verdict.headline,
        _sentence(verdict.reason),
        verdict.status,
        numbers=page.numbers(_numbers(run)),
        links=links,
    )
    return Made(page.page(f"{run.name}: {verdict.headline}", [head, *parts]), verdict)


def write_report(run: RunFiles, shown: Gallery | str, references: Path) -> tuple[str, Verdict]:
    """Write the report into the run's folder; return where it is, and its verdict."""
    made, uri = make_report(run, shown, references), storage.join(run.uri, NAME)
    storage.write(uri, made.html.encode("utf-8"))
    return uri, made.verdict


def gallery_of(clips: Sequence[ShownClip], grid: TokenGrid, index: Index) -> Gallery | str:
    """Return the gallery of clips that were shown already, or why there is none."""
    names = index.names(sorted({clip.video_id for clip in clips}))
    return gallery(clips, grid, names) or "no clip is shown: the method has no masks, or not one clip could be read"


def gallery_of_run(run: RunFiles, clips: int) -> Gallery | str:
    """Return the gallery of a run with its newest checkpoint's weights, or why there is none.

    Raises:
        What reading the checkpoint or the videos does.
    """
    if not clips:
        return "no clips were asked for"
    if run.recipe is not None and run.recipe.record.labelled:
        return OF_A_CLASSIFIER
    if run.recipe is None or run.past is None or run.index is None:
        return f"there is no checkpoint: {run.missing.get('the ledger', 'the recipe cannot be read')}"
    # Only here: a report without a gallery builds no model.
    from system.report.picture import clips_of_run  # noqa: PLC0415
    from system.train.session import load_model  # noqa: PLC0415

    checkpoint = run.past.checkpoint
    model = load_model(run.recipe, checkpoint)
    return gallery_of(
        clips_of_run(run.recipe, run.index.uri, model, checkpoint.step, clips), run.recipe.grid, run.index
    )


def _numbers(run: RunFiles) -> Iterator[tuple[str, str]]:
    metrics = run.metrics
    yield "steps" + (f" of {run.steps:,}" if run.steps else ""), f"{run.done:,}"
    losses = metrics.finite("loss")
    yield "newest loss", f"{losses[-1]:.4g}" if len(losses) else "-"
    seconds, batch = metrics.finite("step_s"), run.recipe.train.global_batch if run.recipe is not None else 0
    middle = sorted(seconds.tolist())[len(seconds) // 2] if len(seconds) else 0.0
    yield "clips/s, median", f"{batch / middle:.3g}" if middle and batch else "-"
    if metrics.has("mfu"):
        yield "MFU, median", f"{sorted(metrics.finite('mfu').tolist())[len(metrics.finite('mfu')) // 2]:.1%}"
    if run.account is not None:
        yield "in all", duration(run.account.whole / 1000)
        yield "goodput", f"{run.account.parts['compute'] / max(1, run.account.whole):.0%}"
    count = max(0, len(run.starts) - 1)
    yield "restart" if count == 1 else "restarts", str(count) if run.starts else "-"


def duration(seconds: float) -> str:
    """Write a time with its two largest units: 2 min 40 s."""
    whole = round(seconds)
    for (unit, size), (small, part) in pairwise((("d", 86400), ("h", 3600), ("min", 60), ("s", 1))):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {small}"
    return f"{whole} s"


def _when(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_s))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _nothing() -> str:
    return element("p", "Not a step was logged.", "soft")


def _time(run: RunFiles) -> list[str]:
    if run.account is None:
        return [element("p", "The run has no account of its time.", "soft")]
    parts = [(WORDS.get(name, name.replace("_", " ")), run.account.parts[name]) for name in PARTS]
    idle = ", ".join(f"{name} {duration(amount / 1000)}" for name, amount in run.account.idle.items() if amount)
    lead = f"All jobs of the run, {duration(run.account.whole / 1000)}." + (f" Idle was: {idle}." if idle else "")
    return [element("p", lead, "lead"), page.bar(parts)]


def _restarts(run: RunFiles) -> list[str]:
    starts = run.starts
    if not starts:
        stretches = run.audit.stretches if run.audit is not None else ()
        rows = [(f"{each.first_step} to {each.stop_step - 1}", each.ranks, each.generation) for each in stretches]
        lead = element("p", "The run keeps no record of its starts; the ledger knows these stretches.", "soft")
        return [lead, table(["steps", "ranks", "generation"], rows)] if rows else [_no_record()]
    goes_on = starts[-1] if run.running and starts[-1].ended_s is None else None
    rows_of_starts = [
        (
            _when(each.began_s),
            each.from_step,
            each.ranks,
            "-" if each.reached is None else each.reached,
            "it goes on" if each is goes_on else why_ended(each),
        )
        for each in starts[-ROWS:]
    ]
    count = len(restarts(starts))
    lost = sum(max(0, (old.reached or 0) - new.from_step) for old, new in restarts(starts))
    told = f"{counted(len(starts), 'start')}, {counted(count, 'restart')}; {counted(lost, 'step')} done again."
    head = ["began", "from step", "ranks", "reached", "ended with"]
    skipped = [element("p", f"Step {step} is left out: {why}", "note") for step, why in list(run.skips.items())[:ROWS]]
    return [element("p", told, "lead"), table(head, rows_of_starts), *skipped]


def _no_record() -> str:
    return element("p", "No record of the run's starts.", "soft")


def _gallery(shown: Gallery | str) -> tuple[list[str], str]:
    if isinstance(shown, str):
        return [element("p", f"No gallery: {shown}.", "soft")], ""
    return [shown.html], shown.lead


def _bad_videos(run: RunFiles) -> list[str]:
    bad = run.bad_videos
    if not bad:
        return [element("p", "None.", "soft")]
    rows = [(each.name, each.code, each.reason) for each in bad[:ROWS]]
    more = f" The first {ROWS} of them:" if len(bad) > ROWS else ""
    lead = f"{counted(len(bad), 'video')} could not be read.{more}"
    return [element("p", lead, "lead"), table(["video", "code", "reason"], rows)]


def _recipe(run: RunFiles) -> list[str]:
    parts = []
    if run.values:
        text = yaml.safe_dump(dict(run.values), sort_keys=False, width=90)
        parts.append(folded("The resolved recipe", f"<pre>{escape(text)}</pre>"))
    parts.append(folded("Environment", facts(_environment(run))))
    if run.missing:
        parts.append(folded("What could not be read for this page", facts(run.missing.items())))
    return parts


def _environment(run: RunFiles) -> Iterator[tuple[str, str]]:
    yield "run", run.uri
    yield from ran_on(run.starts)
    machine = dict(run.jobs[-1].machine) if run.jobs else {}
    packages = machine.pop("packages", {})
    for name, value in machine.items():
        if value is not None and name != "load":
            yield f"driver's {name.replace('_', ' ')}", str(value)
    if isinstance(packages, dict):
        yield from ((f"driver's {name}", str(version)) for name, version in packages.items())
    if not machine:
        yield "driver's machine and versions", "not recorded"
    for name, build in dict(run.state.get("decoders", {})).items():
        yield f"decoder {name}", str(build)
    if run.state:
        yield "ranks of the newest checkpoint", str(run.state.get("ranks", "-"))
    if run.index is not None:
        yield "index", f"{run.index.uri}: {run.index.num_videos:,} videos, fingerprint {run.index.fingerprint}"
