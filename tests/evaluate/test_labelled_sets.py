"""Small labelled sets of large ones, and what is refused before a run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from jobs.checks import check_probe
from system.data.index import Index
from system.data.labels import Labelled
from system.data.synthetic import moving_video
from system.errors import DataError, RecipeError, TubeletError
from system.evaluate.labelled_sets import few_of, labelled_set, online_sides, views_of
from system.recipe import Recipe
from tests.small import tiny_recipe


@pytest.fixture(scope="module")
def index(generated: Path) -> Index:
    (found,) = generated.rglob("synthetic/**/index.parquet")
    return Index(str(found))


def listed(path: Path, index: Index, labels: list[str]) -> str:
    """Write a list that labels the first videos of an index."""
    path.write_text("".join(f"{video.uri} {label}\n" for video, label in zip(index, labels, strict=False)))
    return str(path)


def probing(generated: Path, index: Index, labels: str, *more: str) -> Recipe:
    return tiny_recipe(generated, f"probe.uri={index.uri}", f"probe.labels={labels}", *more)


def test_a_share_of_each_class_is_held_out_and_no_video_is_in_both_sets(
    generated: Path, index: Index, tmp_path: Path
) -> None:
    labels = listed(tmp_path / "list.txt", index, ["a"] * 10 + ["b"] * 4 + ["c"] * 2)
    sides = online_sides(probing(generated, index, labels), print)
    assert sides.classes == ("a", "b", "c")
    assert Counter(sides.test.labels.tolist()) == {0: 2, 1: 1, 2: 1}
    assert Counter(sides.train.labels.tolist()) == {0: 8, 1: 3, 2: 1}
    assert sorted([*sides.train.ids, *sides.test.ids]) == list(range(16))
    again = online_sides(probing(generated, index, labels), print)
    assert again.test.ids.tolist() == sides.test.ids.tolist()


def test_few_videos_are_taken_evenly_from_the_classes(index: Index, tmp_path: Path) -> None:
    labels = listed(tmp_path / "list.txt", index, ["a"] * 10 + ["b"] * 4 + ["c"] * 2)
    found: Labelled = labelled_set("train", index, labels, views_of("1x1", "dense")).found
    assert Counter(few_of(found, index, 8).labels) == {"a": 3, "b": 3, "c": 2}
    assert Counter(few_of(found, index, 11).labels) == {"a": 5, "b": 4, "c": 2}
    assert few_of(found, index, 16) is found
    fewer, more = (set(few_of(found, index, count).ids.tolist()) for count in (5, 9))
    assert fewer < more


def test_which_videos_are_taken_does_not_depend_on_their_numbers(index: Index, tmp_path: Path) -> None:
    views = views_of("1x1", "dense")
    whole = labelled_set("train", index, listed(tmp_path / "whole.txt", index, ["a"] * 16), views).found
    lines = (tmp_path / "whole.txt").read_text().splitlines(keepends=True)
    taken = few_of(whole, index, 4).ids.tolist()
    (tmp_path / "part.txt").write_text("".join(line for number, line in enumerate(lines) if number in (*taken, 0, 1)))
    part = labelled_set("train", index, str(tmp_path / "part.txt"), views, only_listed=True).found
    assert few_of(part, index, 4).ids.tolist() == taken


@pytest.mark.parametrize(
    ("labels", "more", "error", "says"),
    [
        (["a"] * 12, (), DataError, "4 of 16 videos of the index are not in the list; complete it"),
        (["a"] * 16, (), DataError, "a probe tells classes apart, and all 12 are a"),
        (
            [*"aabcde", *"a" * 10],
            (),
            DataError,
            "4 of 5 classes have a single video, and one is wanted to learn from and one to test on: b, c, d and 1",
        ),
        ([*"abcd"] * 4, ("probe.videos=3",), RecipeError, "probe.videos=3 leaves some of the 4 classes of"),
        ([*"abcd"] * 4, ("probe.test_uri=INDEX",), DataError, "16 videos are in both sets:"),
        ([*"abcd"] * 4, ("probe.test_uri=/nowhere/videos",), DataError, "/nowhere/videos"),
    ],
)
def test_what_a_probe_cannot_be_made_of_is_refused_before_training(
    generated: Path,
    index: Index,
    tmp_path: Path,
    labels: list[str],
    more: tuple[str, ...],
    error: type[TubeletError],
    says: str,
) -> None:
    given = [each.replace("INDEX", index.uri) for each in more]
    recipe = probing(generated, index, listed(tmp_path / "list.txt", index, labels), *given)
    with pytest.raises(error) as found:
        check_probe(recipe, print)
    assert says in str(found.value)


def folders(where: Path) -> tuple[str, str]:
    """Make a set to learn from and one to test on, of two classes, and a file that is no video in the latter."""
    for part, count in (("train", 2), ("test", 2)):
        for label in ("a", "b"):
            (where / part / label).mkdir(parents=True)
            for number in range(count):
                made = moving_video(number, ord(label), size=(48, 48), num_frames=8)[1]
                (where / part / label / f"{number}.mp4").write_bytes(made)
    (where / "test" / "b" / "broken.mp4").write_bytes(b"")
    return str(where / "train"), str(where / "test")


def test_files_that_the_index_of_a_test_set_rejects_are_wrong_as_in_the_job_where_no_video_is_left_out(
    tmp_path: Path,
) -> None:
    train, test = folders(tmp_path)
    where = (f"probe.uri={train}", f"probe.test_uri={test}", "probe.labels=folder", "data.max_bad_ratio=0.2")
    whole = online_sides(tiny_recipe(tmp_path / "runs", *where), print)
    assert (len(whole.test.ids), whole.test.lost.tolist(), whole.train.lost.tolist()) == (4, [1], [])
    cut = online_sides(tiny_recipe(tmp_path / "runs", *where, "probe.videos=3"), print)
    assert (len(cut.test.ids), cut.test.lost.tolist()) == (3, [])
    held = online_sides(tiny_recipe(tmp_path / "held", f"probe.uri={test}", *where[2:]), print)
    assert held.test.lost.tolist() == []


def test_a_probes_set_with_too_many_files_that_are_no_videos_is_refused_and_its_index_not_kept(tmp_path: Path) -> None:
    train, test = folders(tmp_path)
    recipe = tiny_recipe(tmp_path / "runs", f"probe.uri={train}", f"probe.test_uri={test}", "probe.labels=folder")
    with pytest.raises(DataError, match=r"test: 1 of 5 videos cannot be read, more than data.max_bad_ratio=0.1"):
        check_probe(recipe, print)
    assert not list(tmp_path.glob("runs/**/probe.test.index.parquet"))
    Path(test, "b", "broken.mp4").unlink()
    assert len(online_sides(recipe, print).test.ids) == 4


def test_a_folder_that_is_not_there_is_refused(generated: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        check_probe(tiny_recipe(generated, "probe.uri=/nowhere/videos"), print)


def test_what_a_probe_looks_at_and_what_it_takes_is_told(generated: Path, index: Index, tmp_path: Path) -> None:
    labels = listed(tmp_path / "list.txt", index, ["a", "b"] * 8)
    found = check_probe(probing(generated, index, labels, "probe.test_views=2x1"), print)
    assert found.says == (
        "12 videos to learn from and 4 to test on, of 2 classes; their 20 views take 0 MB of a local disk"
    )
    assert check_probe(tiny_recipe(generated), print).says == "none"
