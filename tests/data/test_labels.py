"""Labels from the index, from lists and from folders, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from system.data.index import Index, IndexWriter, Rejected
from system.data.labels import class_names, class_numbers, known_labels, labelled, read_list
from system.errors import DataError

FACTS = {
    "codec": "h264",
    "width": 48,
    "height": 48,
    "num_frames": 16,
    "fps": 24.0,
    "key_frames": [0],
    "key_timestamps": [0],
    "key_positions": [0],
    "header": [0, 10],
}
NAMES = ("run/a.mp4", "run/b.mp4", "walk/a.mp4", "walk/c.mp4")


def index_of(
    folder: Path, names: tuple[str, ...] = NAMES, labels: tuple[str | None, ...] = (), rejected: tuple[str, ...] = ()
) -> Index:
    writer = IndexWriter(str(folder / "index.parquet"), "videos")
    for number, name in enumerate(names):
        place = {"uri": f"s3://bucket/set/{name}", "name": name, "byte_start": 0, "num_bytes": 10, "etag": ""}
        writer.add({**place, "label": labels[number] if labels else None, **FACTS})
    for name in rejected:
        writer.reject(Rejected(name, "open", "is empty"))
    writer.close()
    return Index(writer.uri)


def listed(folder: Path, *lines: str) -> str:
    path = folder / "list.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def refusal(index: Index, source: str, *, only_listed: bool = False) -> str:
    with pytest.raises(DataError) as refused:
        labelled(index, source, only_listed=only_listed)
    return str(refused.value)


def test_labels_are_read_from_the_index(tmp_path: Path) -> None:
    found = labelled(index_of(tmp_path, labels=("r", "r", "w", "w")))
    assert found.ids.tolist() == [0, 1, 2, 3]
    assert found.labels == ("r", "r", "w", "w")


def test_videos_that_the_index_gives_no_label_are_refused_with_their_number_and_three_examples(tmp_path: Path) -> None:
    index = index_of(tmp_path, (*NAMES, "walk/d.mp4"), labels=("r", None, None, "", None))
    told = refusal(index, "index")
    assert "4 of 5 videos have no label: run/b.mp4, walk/a.mp4, walk/c.mp4 and 1 more;" in told
    assert known_labels(index) == ["r", None, None, None, None]


def test_labels_are_the_names_of_the_folders_that_videos_lie_in(tmp_path: Path) -> None:
    names = ("train/run/a.mp4", "shard.tar/walk/b.mp4")
    assert labelled(index_of(tmp_path, names), "folder").labels == ("run", "walk")


def test_a_video_in_no_folder_is_refused(tmp_path: Path) -> None:
    told = refusal(index_of(tmp_path, (*NAMES, "loose.mp4")), "folder")
    assert "1 of 5 videos have no label: loose.mp4; they lie in no folder" in told


@pytest.mark.parametrize("before", ["", "/data/set/", "s3://bucket/set/", "./"])
@pytest.mark.parametrize("between", [" ", ",", "\t"])
def test_a_list_names_videos_by_any_path_that_ends_in_their_name(tmp_path: Path, before: str, between: str) -> None:
    uri = listed(tmp_path, *(f"{before}{name}{between}{number}" for number, name in enumerate(NAMES)))
    assert labelled(index_of(tmp_path), uri).labels == ("0", "1", "2", "3")


def test_a_list_may_say_less_than_the_name_of_a_video(tmp_path: Path) -> None:
    uri = listed(tmp_path, "run/a.mp4 0", "b.mp4 0", "walk/a.mp4 1", "c.mp4 1")
    assert labelled(index_of(tmp_path), uri).labels == ("0", "0", "1", "1")


def test_the_same_file_name_in_another_folder_is_another_video(tmp_path: Path) -> None:
    told = refusal(index_of(tmp_path, ("run/a.mp4",)), listed(tmp_path, "jump/a.mp4 0", "run/a.mp4 1"))
    assert "1 videos of the list are not in the index" in told
    assert "jump/a.mp4" in told


def test_all_that_is_wrong_with_a_list_is_told_at_once(tmp_path: Path) -> None:
    uri = listed(tmp_path, "a.mp4 0", "run/b.mp4 0", "run/b.mp4 1", *(f"x{number}.mp4 0" for number in range(5)))
    told = refusal(index_of(tmp_path), uri)
    assert "5 videos of the list are not in the index; add them" in told
    assert "x0.mp4, x1.mp4, x2.mp4 and 2 more" in told
    assert "1 lines could mean several videos; write more of the path: a.mp4" in told
    assert "1 videos have two labels; take one out: run/b.mp4 (0 and 1)" in told
    assert "3 of 4 videos of the index are not in the list" in told
    assert "run/a.mp4, walk/a.mp4, walk/c.mp4" in told


def test_a_list_of_a_part_of_the_index_is_taken_when_that_is_said(tmp_path: Path) -> None:
    found = labelled(index_of(tmp_path), listed(tmp_path, "walk/c.mp4 1", "run/b.mp4 0"), only_listed=True)
    assert (found.ids.tolist(), found.labels, found.left_out) == ([1, 3], ("0", "1"), 2)


def test_videos_that_the_index_rejects_are_counted_and_not_refused(tmp_path: Path) -> None:
    index = index_of(tmp_path, rejected=("run/broken.mp4",))
    lines = [f"{name} 0" for name in NAMES]
    found = labelled(index, listed(tmp_path, *lines, "/d/run/broken.mp4 7"))
    assert (found.rejected, found.lost) == (1, ("7",))


def test_folders_say_the_labels_of_videos_that_the_index_rejects_and_the_index_does_not(tmp_path: Path) -> None:
    index = index_of(tmp_path, labels=("r", "r", "w", "w"), rejected=("set/run/broken.mp4", "loose.mp4"))
    assert labelled(index, "folder").lost == ("run",)
    assert labelled(index, "index").lost == ()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("a.mp4 0", "b.mp4", "c.mp4"), "2 of 3 lines have no label: line 2, line 3"),
        ((), "the list of labels is empty"),
    ],
)
def test_a_list_without_labels_is_refused(tmp_path: Path, lines: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_list(listed(tmp_path, *lines))


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: there is no such list"):
        read_list(str(tmp_path / "none.csv"))


def test_paths_with_spaces_and_a_header_are_read(tmp_path: Path) -> None:
    assert read_list(listed(tmp_path, "path label", "my run/a b.mp4 3")) == [("my run/a b.mp4", "3")]
    assert read_list(listed(tmp_path, '"a, b.mp4",Push Up')) == [("a, b.mp4", "Push Up")]


def test_classes_are_ordered_as_numbers_where_they_are_numbers() -> None:
    assert class_names(["10", "9", "10"]) == ("9", "10")
    assert class_names(["10", "9", "x"]) == ("10", "9", "x")


def test_labels_that_are_none_of_the_classes_are_refused_with_counts_and_three_examples() -> None:
    assert class_numbers(["b", "a", "b"], ("a", "b"), "test", "train").tolist() == [1, 0, 1]
    with pytest.raises(DataError) as refused:
        class_numbers(["a", "p", "q", "r", "s", "p"], ("a", "b"), "the test list", "the training list")
    assert str(refused.value) == (
        "the test list: 4 classes of 5 videos are none of the 2 classes of the training list: p, q, r and 1 more;"
        " those are a, b"
    )
