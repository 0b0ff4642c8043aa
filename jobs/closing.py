"""What a job leaves in the run's folder at its end besides its summary: a picture and a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.cli import REFERENCES, say
from system import storage
from system.data.dataset import run_uri
from system.recipe import Recipe
from system.train.checkpoint import open_checkpoint
from system.train.launch import RunState
from system.train.manifest import step_uri

if TYPE_CHECKING:
    from system.report.picture import ShownClip


def written(state: RunState, folder: str) -> dict[str, str]:
    """Name the places of what the trainers wrote."""
    checkpoint = {"checkpoint": step_uri(folder, state.progress.step)} if state.progress.step else {}
    outputs = {
        **checkpoint,
        "metrics": storage.join(folder, "metrics.jsonl"),
        "summary": storage.join(folder, "summary.json"),
    }
    if state.progress.quarantine:
        outputs["quarantine"] = storage.join(folder, "quarantine.jsonl")
    return outputs


def shown(recipe: Recipe, state: RunState) -> dict[str, str]:
    """Write the run's picture and its report, of the same clips, and name their places."""
    clips = _clips(recipe, state)
    return {**_picture(recipe, state, clips), **_report(recipe, state, clips)}


def _clips(recipe: Recipe, state: RunState) -> list[ShownClip]:
    """Show clips with the weights that the run has now: for its picture and its report."""
    if not recipe.telemetry.picture_clips or recipe.record.labelled:
        return []
    # After the run: the driver does without torch, which takes seconds to import, until here.
    from system.report.picture import clips_of_run  # noqa: PLC0415
    from system.train.session import load_model  # noqa: PLC0415

    step = state.progress.step
    model = load_model(recipe, open_checkpoint(run_uri(recipe), step))
    return clips_of_run(recipe, state.index.uri, model, step, recipe.telemetry.picture_clips)


def _picture(recipe: Recipe, state: RunState, clips: Sequence[ShownClip]) -> dict[str, str]:
    """Write the run's picture and name its place."""
    if not clips:
        if recipe.telemetry.picture_clips and not recipe.record.labelled:
            say("no picture: not one video of the next step can be read")
        return {}
    from system.report.picture import picture_of  # noqa: PLC0415  torch

    uri = storage.join(run_uri(recipe), "pictures", f"step_{state.progress.step:08d}.png")
    storage.write(uri, picture_of(clips))
    return {"picture": uri}


def _report(recipe: Recipe, state: RunState, clips: Sequence[ShownClip]) -> dict[str, str]:
    """Write the run's report and name its place; whatever goes wrong with it, the run is done."""
    if not recipe.telemetry.report:
        return {}
    try:
        from system.report.run_files import read_run  # noqa: PLC0415  torch
        from system.report.run_report import gallery_of, write_report  # noqa: PLC0415

        run = read_run(run_uri(recipe), held=True)
        uri, verdict = write_report(run, gallery_of(clips, recipe.grid, state.index), REFERENCES)
    except Exception as error:  # noqa: BLE001  a page about the run is not the run
        say(f"no report: {type(error).__name__}: {error}; `python -m jobs.report --run {run_uri(recipe)}` tries again")
        return {}
    say(f"report: {verdict.headline.lower()}: {verdict.reason}")
    return {"report": uri}
