from __future__ import annotations

import os
from errno import EACCES, ENOSPC, EPERM
from pathlib import Path

import pytest

from system import storage
from system.errors import DataError, StorageFault
from system.range_file import RangeFile
from system.storage import local


def test_what_is_written_is_read_whole_or_in_parts(tmp_path: Path) -> None:
    uri = storage.join(str(tmp_path), "a", "b.bin")
    storage.write(uri, b"0123456789")
    assert storage.read(uri) == b"0123456789"
    assert storage.read(uri, 2, 5) == b"234"
    assert storage.read(uri, 7) == b"789"
    assert storage.size(uri) == 10


def test_writing_again_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    storage.write(uri, b"old")
    storage.write(uri, b"new")
    assert storage.read(uri) == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_uri_is_a_path(tmp_path: Path) -> None:
    storage.write(f"file://{tmp_path}/a b", b"x")
    assert (tmp_path / "a b").read_bytes() == b"x"


def test_a_file_uri_of_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a file's URI is file:///path, got data as the machine"):
        storage.exists("file://data/videos/a.mp4")
    storage.write(f"file://localhost{tmp_path}/a", b"x")
    assert storage.exists(f"file://{tmp_path}/a")


def test_a_missing_object_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(storage.MissingError, match="none: there is no such file"):
        storage.read(str(tmp_path / "none"))
    assert not storage.exists(str(tmp_path / "none"))


def test_an_object_that_is_shorter_than_expected_was_replaced(tmp_path: Path) -> None:
    storage.write(str(tmp_path / "a"), b"0123")
    for start in (2, 4, 6):
        with pytest.raises(
            storage.ReplacedError, match="the object is 4 bytes, at least 9 are expected: it was replac"
        ):
            storage.read(str(tmp_path / "a"), start, 9)


def test_fewer_bytes_than_the_object_has_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write(str(tmp_path / "a"), b"0123456789")
    monkeypatch.setattr(local, "get", lambda *_: b"23")
    with pytest.raises(StorageFault, match="asked for bytes 2 to 9, got 2"):
        storage.read(str(tmp_path / "a"), 2, 9)


def test_a_path_through_a_file_and_a_folder_are_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for uri in (f"{tmp_path}/file/x", f"{tmp_path}/file/x/y"):
        with pytest.raises(DataError, match="a part of this path is a file"):
            storage.read(uri)
        with pytest.raises(DataError, match="a part of this path is a file"):
            storage.write(uri, b"")
    with pytest.raises(DataError, match="a file is wanted, this is a folder"):
        storage.read(f"{tmp_path}/folder")


def test_a_full_disk_is_a_fault_and_leaves_no_part_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageFault, match="No space left on device; make room"):
        storage.write(str(tmp_path / "a"), b"x")
    assert list(tmp_path.iterdir()) == []


def test_what_is_uploaded_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "there").exists()))
    (tmp_path / "from").write_bytes(b"x")
    storage.upload(tmp_path / "from", str(tmp_path / "there"))
    assert synced == [False]


def test_a_place_is_tried_before_hours_of_work(tmp_path: Path) -> None:
    storage.check_writable(str(tmp_path / "out" / "index.parquet"))
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="a part of this path is a file"):
        storage.check_writable(str(tmp_path / "file" / "index.parquet"))


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(DataError, match=r"local path, file:// or s3://, got gs://bucket"):
        storage.read("gs://bucket/key")


def test_a_listing_is_sorted_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a", ".hidden", "c/.part", ".d/1", "lost+found/1"):
        storage.write(storage.join(str(tmp_path), name), b"x")
    found = [item.uri.removeprefix(f"{tmp_path}/") for item in storage.list_objects(str(tmp_path))]
    assert found == ["a", "b/1", "b/2"]


def test_links_to_folders_are_followed_where_it_is_said_but_not_in_circles(tmp_path: Path) -> None:
    root, other = tmp_path / "videos", tmp_path / "other"
    for uri in (root / "a" / "1", other / "deep" / "2"):
        storage.write(str(uri), b"x")
    (root / "b").symlink_to(other)
    (root / "a" / "up").symlink_to(root)
    (other / "deep" / "back").symlink_to(root / "a")  # a circle by way of another folder
    (other / "deep" / "up").symlink_to(other)
    (root / "all").symlink_to(root / "a")
    found = [item.uri.removeprefix(f"{root}/") for item in storage.list_objects(str(root), follow_links=True)]
    assert found == ["a/1", "b/deep/2"]  # what lies in the folder itself is there once
    assert [Path(item.uri).name for item in storage.list_objects(str(root))] == ["1"]


def test_a_link_to_what_is_hidden_shows_it(tmp_path: Path) -> None:
    storage.write(str(tmp_path / ".store" / "1"), b"x")
    (tmp_path / "a").symlink_to(tmp_path / ".store")
    assert [item.uri for item in storage.list_objects(str(tmp_path), follow_links=True)] == [f"{tmp_path}/a/1"]


@pytest.mark.parametrize("closed", ["", "b"])
def test_a_folder_that_may_not_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    storage.write(storage.join(str(tmp_path), "a", "1"), b"x")
    storage.write(storage.join(str(tmp_path), "b", "1"), b"x")
    scandir = os.scandir

    def refused(path: str) -> object:  # root may read every folder
        if Path(path) == tmp_path / closed:
            raise PermissionError(EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=f"{tmp_path / closed}: permission denied"):
        list(storage.list_objects(str(tmp_path)))


def test_a_missing_folder_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        list(storage.list_objects(str(tmp_path / "none")))
    assert list(storage.list_objects(str(tmp_path / "none"), missing_ok=True)) == []


def test_an_upload_moves_a_file(tmp_path: Path) -> None:
    source = tmp_path / "from"
    source.write_bytes(b"x")
    storage.upload(source, str(tmp_path / "to" / "there"))
    assert not source.exists()
    assert storage.read(str(tmp_path / "to" / "there")) == b"x"


def test_a_created_file_is_whole_and_not_written_over(tmp_path: Path) -> None:
    uri = str(tmp_path / "folder" / "a")
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.read(uri) == b"first"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a"]
    assert storage.enforces_create(str(tmp_path / "folder"))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a"]


def test_of_many_threads_that_create_a_file_one_succeeds(tmp_path: Path) -> None:
    for number in range(10):
        uri = str(tmp_path / f"{number}")
        won = storage.in_parallel([lambda n=n, u=uri: storage.create(u, b"%d" % n) for n in range(8)])  # type: ignore[misc]
        assert sum(won) == 1
        assert storage.read(uri) == b"%d" % won.index(True)


def test_a_file_system_without_hard_links_does_not_enforce_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(storage.UnsupportedError, match="no hard links"):
        storage.create(str(tmp_path / "a"), b"x")
    assert not storage.enforces_create(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_near_ranges_are_joined_and_far_ones_are_not() -> None:
    assert storage.merge_ranges([(100, 110), (0, 5), (5, 7), (14, 20)], gap=4) == [(0, 7), (14, 20), (100, 110)]


def test_tasks_keep_their_order_and_pass_on_their_errors() -> None:
    assert storage.in_parallel([lambda n=n: n for n in range(40)]) == list(range(40))  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        storage.in_parallel([lambda: 1, lambda: 1 // 0])


def test_a_range_file_reads_as_the_range_would(tmp_path: Path) -> None:
    data = bytes(range(256)) * 8
    storage.write(str(tmp_path / "a"), data)
    file = RangeFile(str(tmp_path / "a"), 100, 1000, chunk=64)
    assert file.read(10) == data[100:110]
    file.seek(-20, 2)
    assert file.read() == data[1080:1100]
    file.seek(500)
    assert file.read(200) == data[600:800]
    assert file.tell() == 700


def test_a_range_file_asks_once_for_what_is_more_than_a_few_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 8
    storage.write(str(tmp_path / "a"), data)
    asked: list[tuple[int, int]] = []

    def noted(uri: str, start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return data[start:stop]

    monkeypatch.setattr("system.range_file.read", noted)
    file = RangeFile(str(tmp_path / "a"), 100, 1000, chunk=64)
    file.seek(10)
    assert file.read(700) == data[110:810]
    assert asked == [(110, 810)]
    file.seek(0)
    assert file.read(70) == data[100:170]
    assert asked[1:] == [(100, 164), (164, 228)]
