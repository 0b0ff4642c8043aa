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
    from system.report.gallery import Gallery
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
    """Write the run's picture and its report, of the same clips, and name their places.

    Whatever goes wrong with one of them costs that one alone: the run is done.
    """
    clips = _clips(recipe, state)
    return {**_picture(recipe, state, clips), **_report(recipe, state, clips)}


def _clips(recipe: Recipe, state: RunState) -> list[ShownClip] | str:
    """Show clips with the weights that the run has now, for its picture and its report; or say why there are none."""
    if not recipe.telemetry.picture_clips:
        return "telemetry.picture_clips is 0"
    if recipe.record.labelled:
        from system.report.gallery import OF_A_CLASSIFIER  # noqa: PLC0415  OpenCV, which the driver does without

        return OF_A_CLASSIFIER
    try:
        # After the run: the driver does without torch, which takes seconds to import, until here.
        from system.report.picture import clips_of_run  # noqa: PLC0415
        from system.train.session import load_model  # noqa: PLC0415

        step = state.progress.step
        model = load_model(recipe, open_checkpoint(run_uri(recipe), step))
        clips = clips_of_run(recipe, state.index.uri, model, step, recipe.telemetry.picture_clips)
    except Exception as error:  # noqa: BLE001  a picture of the run is not the run
        why = _told(error)
    else:
        if clips:
            return clips
        why = "not one video of the next step can be read"
    say(f"no picture: {why}")
    return why


def _picture(recipe: Recipe, state: RunState, clips: Sequence[ShownClip] | str) -> dict[str, str]:
    """Write the run's picture and name its place."""
    if isinstance(clips, str):
        return {}
    try:
        from system.report.picture import picture_of  # noqa: PLC0415  torch

        uri = storage.join(run_uri(recipe), "pictures", f"step_{state.progress.step:08d}.png")
        storage.write(uri, picture_of(clips))
    except Exception as error:  # noqa: BLE001  a picture of the run is not the run
        say(f"no picture: {_told(error)}")
        return {}
    return {"picture": uri}


def _report(recipe: Recipe, state: RunState, clips: Sequence[ShownClip] | str) -> dict[str, str]:
    """Write the run's report and name its place."""
    if not recipe.telemetry.report:
        return {}
    try:
        from system.report.run_files import read_run  # noqa: PLC0415  at a run's end, not while it starts
        from system.report.run_report import write_report  # noqa: PLC0415

        run = read_run(run_uri(recipe), held=True)
        uri, verdict = write_report(run, _gallery(recipe, state, clips), REFERENCES)
    except Exception as error:  # noqa: BLE001  a page about the run is not the run
        say(f"no report: {_told(error)}; `python -m jobs.report --run {run_uri(recipe)}` tries again")
        return {}
    say(f"report: {verdict.headline.lower()}: {verdict.reason}")
    return {"report": uri}


def _gallery(recipe: Recipe, state: RunState, clips: Sequence[ShownClip] | str) -> Gallery | str:
    """Return the gallery of the clips, or why there is none."""
    if isinstance(clips, str):
        return clips
    try:
        from system.report.run_report import gallery_of  # noqa: PLC0415

        return gallery_of(clips, recipe.grid, state.index)
    except Exception as error:  # noqa: BLE001  a page without a gallery is still a page
        return _told(error)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
