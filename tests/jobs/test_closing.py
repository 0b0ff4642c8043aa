from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from jobs.closing import shown, written
from jobs.running import run_to_end
from system import logs
from system.data.dataset import ensure_index, run_uri
from system.errors import DataError
from system.recipe import Recipe
from system.report.markup import escape
from system.train.goodput import newest_record
from system.train.launch import RunState, open_run
from tests.report.page import read
from tests.small import tiny_recipe
from tests.train.ranks import train_here
from tests.train.recorded import keep_recipe


@pytest.fixture(scope="module")
def trained(generated: Path) -> tuple[Recipe, RunState]:
    """A run of two steps."""
    recipe = tiny_recipe(generated, "run.name=closing", "run.stop_at_step=2", "train.global_batch=4")
    keep_recipe(recipe)
    train_here(recipe)
    return recipe, open_run(recipe, ensure_index(recipe), print)


@pytest.fixture
def own_log() -> Iterator[None]:
    """What a job says of itself in each of its lines is gone after it."""
    before = logs.context()
    yield
    logs.begin(before)


@pytest.mark.usefixtures("own_log")
def test_a_job_takes_over_the_view_of_its_run_unless_there_is_nothing_to_do(
    trained: tuple[Recipe, RunState], tmp_path: Path
) -> None:
    recipe, _ = trained
    assert run_to_end(recipe, preflight=False)["status"] == "stopped"
    assert newest_record(run_uri(recipe)) is None
    empty = tmp_path / "empty"
    empty.mkdir()
    fails = tiny_recipe(tmp_path, "run.name=fails", f"data.uri={empty}")
    with pytest.raises(DataError):
        run_to_end(fails, preflight=False)
    begun = newest_record(run_uri(fails))
    assert begun is not None
    assert begun.live is None


def told_to(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update={"telemetry": recipe.telemetry.model_copy(update=changes)})


def test_a_run_leaves_a_picture_and_a_report_of_the_same_clips(trained: tuple[Recipe, RunState]) -> None:
    recipe, state = trained
    places = shown(recipe, state)
    folder = run_uri(recipe)
    assert places == {"picture": f"{folder}/pictures/step_00000002.png", "report": f"{folder}/report.html"}
    assert cv2.imread(places["picture"]) is not None
    html = Path(places["report"]).read_text()
    assert "img" in read(html).tags
    assert html.count('<article class="clip">') == 2
    assert "clean: 2 steps, 8 slots once each" in html
    assert written(state, folder)["checkpoint"] == f"{folder}/checkpoints/step_00000002"


def test_a_report_without_clips_says_why(trained: tuple[Recipe, RunState]) -> None:
    recipe, state = trained
    places = shown(told_to(recipe, picture_clips=0), state)
    assert set(places) == {"report"}
    assert "No gallery: " in Path(places["report"]).read_text()


def test_no_report_is_written_where_none_is_wanted(trained: tuple[Recipe, RunState]) -> None:
    recipe, state = trained
    assert shown(told_to(recipe, picture_clips=0, report=False), state) == {}


def test_a_report_that_cannot_be_written_does_not_fail_a_finished_run(
    trained: tuple[Recipe, RunState], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, state = trained
    place = Path(run_uri(recipe), "report.html")
    place.unlink(missing_ok=True)
    place.mkdir()
    try:
        assert shown(told_to(recipe, picture_clips=0), state) == {}
    finally:
        place.rmdir()
    told = capsys.readouterr().out
    assert "no report: " in told
    assert f"python -m jobs.report --run {run_uri(recipe)}" in told


def test_clips_that_cannot_be_made_cost_the_picture_and_the_gallery_alone(
    trained: tuple[Recipe, RunState], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, state = trained
    checkpoints = Path(run_uri(recipe), "checkpoints")
    hidden = checkpoints.rename(checkpoints.with_name("hidden"))
    try:
        places = shown(recipe, state)
    finally:
        hidden.rename(checkpoints)
    assert set(places) == {"report"}
    told = capsys.readouterr().out
    why = told.split("no picture: ")[1].splitlines()[0]
    assert f"No gallery: {escape(why)}." in Path(places["report"]).read_text()


def test_a_picture_that_cannot_be_written_costs_nothing_else(
    trained: tuple[Recipe, RunState], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, state = trained
    place = Path(run_uri(recipe), "pictures", "step_00000002.png")
    place.unlink(missing_ok=True)
    place.mkdir(parents=True)
    try:
        places = shown(recipe, state)
    finally:
        place.rmdir()
    assert set(places) == {"report"}
    assert "no picture: " in capsys.readouterr().out
    assert '<article class="clip">' in Path(places["report"]).read_text()
