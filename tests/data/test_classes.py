"""The labels of a run: read and kept when it begins, refused when they have changed."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from system import storage
from system.core.plan import EpochPlan
from system.data.classes import read_classes, write_classes, write_labelled
from system.data.dataset import check_rejected, ensure_index, ensure_labels, ensure_videos, run_uri
from system.data.index import GROUP_VIDEOS, Index, IndexWriter
from system.data.labels import labelled
from system.data.sources import build_index
from system.data.synthetic import MOTIONS, moving_video
from system.errors import DataError, RecipeError, ResumeError
from system.recipe import Recipe
from tests.small import labelled_recipe, tiny_recipe
from tests.train.recorded import keep_recipe

NAMES = ("run/a.mp4", "run/b.mp4", "walk/c.mp4", "walk/d.mp4", "jump/e.mp4")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos in folders named by their classes, with an index without labels."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(NAMES):
        data = moving_video(0, number, size=(48, 48), num_frames=8)[1]
        storage.write(str(folder / name), data)
    build_index(str(folder), str(folder / "index.parquet"))
    return folder


def recipe_of(videos: Path, runs: Path, *overrides: str) -> Recipe:
    return labelled_recipe(runs, f"data.uri={videos}", "run.name=fine", *overrides)


def listed(folder: Path, *lines: str) -> str:
    (folder / "list.csv").write_text("".join(f"{line}\n" for line in lines))
    return f"method.labels={folder}/list.csv"


ALL = tuple(f"{name} {name.split('/')[0]}" for name in NAMES)


def test_a_run_keeps_an_index_with_labels_and_the_names_of_its_classes(videos: Path, tmp_path: Path) -> None:
    recipe = recipe_of(videos, tmp_path, "method.labels=folder")
    assert recipe.method.classes == 3  # type: ignore[union-attr]
    assert read_classes(run_uri(recipe)) == ("jump", "run", "walk")
    own = ensure_index(recipe)
    assert own == str(tmp_path / "fine" / "index.parquet")
    assert {row.name: row.label for row in Index(own)} == {name: name.split("/")[0] for name in NAMES}
    assert Index(ensure_videos(recipe)).texts("label") == [None] * 5
    key_frames = {row.name: row.key_frames for row in Index(ensure_videos(recipe))}
    assert {row.name: row.key_frames for row in Index(own)} == key_frames


def test_steps_mix_the_classes_of_an_index_that_is_sorted_by_them(videos: Path, tmp_path: Path) -> None:
    count, window = 3 * GROUP_VIDEOS, GROUP_VIDEOS
    labels = [f"{48 * number // count:02d}" for number in range(count)]
    row = asdict(Index(str(videos / "index.parquet")).row(0))
    sorted_by_class = IndexWriter(str(tmp_path / "sorted.parquet"), "videos in folders")
    for number, label in enumerate(labels):
        sorted_by_class.add({**row, "name": f"{label}/{number}.mp4", "label": label})
    sorted_by_class.close()
    folders = Index(sorted_by_class.uri)
    write_labelled(folders, labelled(folders, "index"), str(tmp_path / "own.parquet"))
    own = Index(str(tmp_path / "own.parquet"))
    plan = EpochPlan(own.num_videos, 0, own.group_videos, window)
    own_labels = own.texts("label")
    mixed = [len({own_labels[video] for video in plan.videos(start, start + 256)}) for start in (0, window, 2 * window)]
    assert min(mixed) > 40  # of 48; a window of neighbours has 16
    assert sorted(zip(own.texts("name"), own_labels, strict=True)) == sorted(
        zip(folders.texts("name"), labels, strict=True)
    )


def test_generated_videos_are_labelled_by_their_motion(generated: Path) -> None:
    recipe = labelled_recipe(generated, "run.name=motions")
    assert set(read_classes(run_uri(recipe))) == set(MOTIONS)


def test_an_index_that_is_made_for_the_run_lies_beside_the_labelled_one(videos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "videos"
    shutil.copytree(videos, copy, ignore=shutil.ignore_patterns("*.parquet"))
    recipe = recipe_of(copy, tmp_path, "method.labels=folder")
    assert ensure_videos(recipe) == str(tmp_path / "fine" / "videos.parquet")
    assert ensure_labels(recipe) == recipe  # it is not mistaken for the videos' own


def test_a_list_of_one_part_leaves_the_other_videos_out_where_that_is_said(videos: Path, tmp_path: Path) -> None:
    part = listed(tmp_path, *ALL[:4])
    with pytest.raises(DataError, match=r"1 of 5 videos of the index are not in the list; complete it.*: jump/e.mp4"):
        recipe_of(videos, tmp_path, part)
    recipe = recipe_of(videos, tmp_path, part, "method.only_listed=true")
    assert {row.name for row in Index(ensure_index(recipe))} == set(NAMES[:4])
    assert read_classes(run_uri(recipe)) == ("run", "walk")


def test_videos_without_a_label_are_refused_with_their_number_and_three_examples(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"5 of 5 videos have no label: jump/e.mp4, run/a.mp4, run/b.mp4 and 2 more"):
        recipe_of(videos, tmp_path)
    assert not (tmp_path / "fine").exists()


def test_another_number_of_classes_than_the_labels_have_is_refused(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"method.classes=4, and the labels have 3 classes \(jump, run, walk\)"):
        recipe_of(videos, tmp_path, "method.labels=folder", "method.classes=4")
    assert recipe_of(videos, tmp_path, "method.labels=folder", "method.classes=3").method.classes == 3  # type: ignore[union-attr]


def test_a_single_class_is_none_to_learn(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all videos are of the class x"):
        recipe_of(videos, tmp_path, listed(tmp_path, *[f"{name} x" for name in NAMES]))


def test_a_run_that_has_begun_goes_on_with_the_same_labels_only(videos: Path, tmp_path: Path) -> None:
    recipe = recipe_of(videos, tmp_path, listed(tmp_path, *ALL))
    before = Index(ensure_index(recipe)).fingerprint
    keep_recipe(recipe)
    assert ensure_labels(recipe) == recipe
    listed(tmp_path, "run/a.mp4 walk", "run/b.mp4 walk", *ALL[2:])
    with pytest.raises(ResumeError) as refused:
        ensure_labels(recipe)
    told = str(refused.value)
    assert "exists with other labels" in told
    assert "2 videos have another label: run/a.mp4 (run, now walk), run/b.mp4 (run, now walk)" in told
    assert Index(ensure_index(recipe)).fingerprint == before


def test_videos_that_come_or_go_are_told_when_a_run_goes_on(videos: Path, tmp_path: Path) -> None:
    recipe = recipe_of(videos, tmp_path, listed(tmp_path, *ALL[:4]), "method.only_listed=true")
    keep_recipe(recipe)
    listed(tmp_path, *ALL[1:])
    with pytest.raises(ResumeError) as refused:
        ensure_labels(recipe)
    assert "1 of its 4 videos have none any more: run/a.mp4" in str(refused.value)
    assert "1 videos are new: jump/e.mp4" in str(refused.value)


def test_before_a_run_has_begun_labels_may_be_mended(videos: Path, tmp_path: Path) -> None:
    recipe = recipe_of(videos, tmp_path, listed(tmp_path, *ALL))
    first = Index(ensure_index(recipe))
    listed(tmp_path, "run/a.mp4 sit", *ALL[1:])
    assert recipe_of(videos, tmp_path, f"method.labels={tmp_path}/list.csv").method.classes == 4  # type: ignore[union-attr]
    second = Index(ensure_index(recipe))
    assert second.texts("label") != first.texts("label")
    assert second.fingerprint != first.fingerprint  # a changed label is another index


def test_videos_that_were_moved_are_found_when_a_run_goes_on(videos: Path, tmp_path: Path) -> None:
    recipe = recipe_of(videos, tmp_path, "method.labels=folder")
    keep_recipe(recipe)
    fingerprint = Index(ensure_index(recipe)).fingerprint
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(videos, elsewhere, ignore=shutil.ignore_patterns("*.parquet"))
    build_index(str(elsewhere), str(elsewhere / "index.parquet"))
    data = recipe.data.model_copy(update={"uri": f"{elsewhere}/index.parquet"})
    ensure_labels(recipe.model_copy(update={"data": data}))
    moved = Index(ensure_index(recipe))
    assert moved.row(0).uri.startswith(str(elsewhere))
    assert moved.fingerprint == fingerprint


def test_a_pre_training_run_of_that_name_is_not_touched(generated: Path) -> None:
    keep_recipe(tiny_recipe(generated, "run.name=taken"))
    with pytest.raises(ResumeError, match="the run taken exists and learns no labels"):
        labelled_recipe(generated, "run.name=taken")
    assert not (generated / "taken" / "index.parquet").exists()


def test_a_method_without_labels_needs_none(generated: Path) -> None:
    recipe = tiny_recipe(generated, "run.name=none")
    assert ensure_labels(recipe) is recipe
    assert not (generated / "none" / "classes.json").exists()


def test_a_listed_file_that_cannot_be_read_counts_and_an_unlisted_one_does_not(videos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "videos"
    shutil.copytree(videos, copy, ignore=shutil.ignore_patterns("*.parquet"))
    for name in ("run/bad.mp4", "walk/worse.mp4"):
        (copy / name).write_bytes(b"no video")
    build_index(str(copy), str(copy / "index.parquet"))
    recipe = recipe_of(copy, tmp_path, listed(tmp_path, *ALL, "run/bad.mp4 run"), "method.only_listed=true")
    index = Index(ensure_index(recipe))
    assert (index.num_videos, index.num_rejected) == (5, 1)
    with pytest.raises(DataError, match="1 of 6 videos cannot be read"):
        check_rejected(recipe, index)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1, 2]"])
def test_a_file_of_classes_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    write_classes(str(tmp_path), ("a", "b"))
    assert read_classes(str(tmp_path)) == ("a", "b")
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match=r"classes.json is no"):
        read_classes(str(tmp_path))


def test_a_run_without_classes_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the run was not fine-tuned"):
        read_classes(str(tmp_path))
