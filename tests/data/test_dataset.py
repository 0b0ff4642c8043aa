from __future__ import annotations

from pathlib import Path

import pytest

from system.data.dataset import check_rejected, ensure_index
from system.data.index import Index
from system.data.sources import build_index
from system.data.synthetic import MOTIONS, moving_video
from system.errors import DataError, RecipeError
from tests.small import tiny_recipe
from tests.train.recorded import keep_recipe


def test_generated_videos_are_made_once_and_labelled_by_their_motion(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "data.uri=synthetic://moving?videos=12&frames=8&height=48&width=48")
    said: list[str] = []
    uri = ensure_index(recipe, say=said.append)
    assert len(said) == 1
    assert ensure_index(recipe, say=said.append) == uri
    assert len(said) == 1
    index = Index(uri)
    assert index.num_videos == 12
    assert {row.label for row in index} == set(MOTIONS)


@pytest.mark.parametrize("uri", ["synthetic://cars", "synthetic://moving?video=3", "synthetic://moving?videos=x"])
def test_a_generated_set_that_does_not_exist_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(RecipeError, match=r"data.uri=synthetic://"):
        ensure_index(tiny_recipe(tmp_path, f"data.uri={uri}"))


@pytest.mark.parametrize("field", ["videos=0", "frames=0", "height=49", "width=14"])
def test_a_generated_set_of_nothing_or_of_sides_that_cannot_be_encoded_is_refused(tmp_path: Path, field: str) -> None:
    with pytest.raises(RecipeError, match=f"height and width even numbers from 16, got {field}"):
        ensure_index(tiny_recipe(tmp_path, f"data.uri=synthetic://moving?{field}"))


def test_an_index_beside_the_videos_is_used_and_else_one_is_made_for_the_run(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").write_bytes(moving_video(0, 0, size=(48, 48), num_frames=8)[1])
    recipe = tiny_recipe(tmp_path / "runs", f"data.uri={tmp_path}/v", "run.name=a")
    assert ensure_index(recipe) == str(tmp_path / "runs" / "a" / "index.parquet")
    build_index(str(tmp_path / "v"), str(tmp_path / "v" / "index.parquet"))
    other = tiny_recipe(tmp_path / "runs", f"data.uri={tmp_path}/v", "run.name=b")
    assert ensure_index(other) == str(tmp_path / "v" / "index.parquet")


def test_before_a_run_begins_an_index_of_other_videos_that_was_made_under_its_name_is_not_taken(tmp_path: Path) -> None:
    recipes = []
    for folder in ("v", "w"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.mp4").write_bytes(moving_video(0, 0, size=(48, 48), num_frames=8)[1])
        recipes.append(tiny_recipe(tmp_path / "runs", f"data.uri={tmp_path}/{folder}", "run.name=a"))
    for recipe in recipes:  # as `jobs.preflight` does with one recipe after the other
        assert [row.name for row in Index(ensure_index(recipe))] == [f"{Path(recipe.data.uri).name}.mp4"]
    before = Path(ensure_index(recipes[1])).stat().st_mtime_ns
    assert Path(ensure_index(recipes[1])).stat().st_mtime_ns == before
    keep_recipe(recipes[1])
    assert [row.name for row in Index(ensure_index(recipes[0]))] == ["w.mp4"]  # and the run refuses such a recipe


def test_a_run_that_began_with_the_index_beside_its_videos_goes_on_with_it(tmp_path: Path) -> None:
    for folder in ("v", "w"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.mp4").write_bytes(moving_video(0, 0, size=(48, 48), num_frames=8)[1])
    beside = build_index(str(tmp_path / "w"), str(tmp_path / "w" / "index.parquet")).uri
    generated = "synthetic://moving?videos=1&frames=2&height=48&width=48"
    for name, uri in (("a", f"{tmp_path}/w"), ("b", generated)):
        ensure_index(tiny_recipe(tmp_path / "runs", f"data.uri={tmp_path}/v", f"run.name={name}"))  # of a preflight
        recipe = tiny_recipe(tmp_path / "runs", f"data.uri={uri}", f"run.name={name}")
        began_with = ensure_index(recipe)
        keep_recipe(recipe)
        assert ensure_index(recipe) == began_with
        assert (began_with == beside) == (name == "a")


def test_an_index_that_was_made_from_another_working_folder_is_of_its_own_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder / "videos").mkdir(parents=True)
        video = tmp_path / folder / "videos" / f"{folder}.mp4"
        video.write_bytes(moving_video(0, 0, size=(48, 48), num_frames=8)[1])
        monkeypatch.chdir(tmp_path / folder)
        recipe = tiny_recipe(tmp_path / "runs", "data.uri=videos", "run.name=a")
        assert [row.name for row in Index(ensure_index(recipe))] == [f"{folder}.mp4"]


def test_too_many_unreadable_files_stop_the_run_and_are_named(tmp_path: Path) -> None:
    (tmp_path / "good.mp4").write_bytes(moving_video(0, 0, size=(48, 48), num_frames=8)[1])
    (tmp_path / "bad.mp4").write_bytes(b"x")
    recipe = tiny_recipe(tmp_path / "runs", f"data.uri={tmp_path}")
    index = Index(build_index(str(tmp_path), str(tmp_path / "runs" / "index.parquet")).uri)
    with pytest.raises(
        DataError, match=r"1 of 2 videos cannot be read, more than data.max_bad_ratio=0.1(.|\n)*bad.mp4"
    ):
        check_rejected(recipe, index)
    check_rejected(tiny_recipe(tmp_path / "runs", "data.max_bad_ratio=0.5"), index)
