from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from system import storage
from system.data.index import GROUP_VIDEOS, Index, IndexWriter, Rejected, read_rejected
from system.data.probe import checked_facts
from system.data.sources import Candidate, build_index, candidates
from system.data.synthetic import moving_video
from system.errors import DataError, DecodeError, StorageFault


def write_videos(folder: Path, count: int = 3) -> Path:
    for number in range(count):
        label, data = moving_video(0, number, size=(48, 48), num_frames=8)
        storage.write(str(folder / label / f"{number}.mp4"), data)
    return folder


def test_an_index_lists_every_video_with_what_its_header_says(tmp_path: Path) -> None:
    build_index(str(write_videos(tmp_path / "v")), str(tmp_path / "index.parquet"), labels="folder")
    index = Index(str(tmp_path / "index.parquet"))
    rows = list(index)
    assert [row.name for row in rows] == ["left/0.mp4", "right/1.mp4", "up/2.mp4"]
    assert [row.label for row in rows] == ["left", "right", "up"]
    assert [row.video_id for row in rows] == [0, 1, 2]
    assert {(row.codec, row.width, row.height, row.num_frames, row.fps) for row in rows} == {("h264", 48, 48, 8, 25.0)}
    assert rows[0].duration_s == pytest.approx(0.32)
    assert rows[0].key_frames == [0]


def test_files_that_are_no_videos_are_rejected_with_their_reasons(tmp_path: Path) -> None:
    folder = write_videos(tmp_path / "v", 1)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video")
    (folder / "cut.mp4").write_bytes(moving_video(0, 0, size=(48, 48), num_frames=8)[1][:300])
    (folder / "notes.txt").write_text("not even named like one")
    writer = build_index(str(folder), str(tmp_path / "index.parquet"))
    assert writer.num_videos == 1
    rejected = read_rejected(str(tmp_path / "index.parquet"))
    assert {bad.name for bad in rejected} == {"empty.mp4", "text.mp4", "cut.mp4"}
    assert next(bad.reason for bad in rejected if bad.name == "empty.mp4") == "the file is empty"
    assert Index(str(tmp_path / "index.parquet")).num_rejected == 3


@pytest.mark.parametrize("error", [DataError("refused the credentials"), StorageFault("the store is away")])
def test_indexing_ends_with_an_error_of_storage_and_rejects_nothing_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder = write_videos(tmp_path / "v", 12)
    honest, asked = storage.read, set()

    def refuse_one(uri: str, start: int = 0, stop: int | None = None) -> bytes:
        asked.add(uri)
        if uri.endswith("/1.mp4"):
            raise error
        return honest(uri, start, stop)

    monkeypatch.setattr(storage, "read", refuse_one)
    with pytest.raises(type(error), match=str(error)):
        build_index(str(folder), str(tmp_path / "index.parquet"), workers=1)
    assert len(asked) < 12  # what was waiting was not begun
    assert not (tmp_path / "index.parquet").exists()


def test_a_video_that_goes_while_it_is_indexed_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_videos(tmp_path / "v", 2)
    honest = storage.read

    def gone(uri: str, start: int = 0, stop: int | None = None) -> bytes:
        if uri.endswith("/1.mp4"):
            raise storage.MissingError("there is no such object")
        return honest(uri, start, stop)

    monkeypatch.setattr(storage, "read", gone)
    writer = build_index(str(folder), str(tmp_path / "index.parquet"))
    assert [(bad.name, bad.code) for bad in writer.rejected] == [("right/1.mp4", "storage")]


def test_a_folder_without_videos_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no videos \(1 other files\); looked for .*\.mp4"):
        build_index(str(tmp_path), str(tmp_path / "index.parquet"))


def test_a_folder_of_broken_videos_is_refused_with_the_first_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of 1 files is a video that can be read; a.mp4: "):
        build_index(str(tmp_path), str(tmp_path / "out" / "index.parquet"))


def test_videos_in_linked_folders_are_found_under_the_links_name(tmp_path: Path) -> None:
    (tmp_path / "disk2").mkdir()
    (tmp_path / "disk2" / "a.mp4").write_bytes(b"x")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "walk").symlink_to(tmp_path / "disk2")
    assert [found.name for found in candidates(str(tmp_path / "videos"))] == ["walk/a.mp4"]


def test_members_of_a_tar_are_byte_ranges_of_it(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "v")
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "a.tar", "w") as tar:
        for path in sorted(videos.rglob("*.mp4")):
            tar.add(path, f"{path.parent.name}/{path.name}")
    found = list(candidates(str(tmp_path / "shards")))
    assert [each.name for each in found] == ["a.tar/left/0.mp4", "a.tar/right/1.mp4", "a.tar/up/2.mp4"]
    for each in found:
        assert isinstance(each, Candidate)
        data = storage.read(each.uri, each.byte_start, each.byte_start + each.num_bytes)
        assert data == (videos / each.name.removeprefix("a.tar/")).read_bytes()
    assert build_index(str(tmp_path / "shards"), str(tmp_path / "index.parquet")).num_videos == 3


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match="is not a plain tar file"):
        list(candidates(str(tmp_path)))


def test_a_tar_that_is_cut_short_gives_what_is_whole_and_indexing_goes_on(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "v")
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "b.tar", "w") as tar:
        for path in sorted(videos.rglob("*.mp4")):
            tar.add(path, path.name)
    with tarfile.open(shards / "b.tar") as tar:
        last = tar.getmembers()[-1].offset_data
    (shards / "c.tar").write_bytes((shards / "b.tar").read_bytes())
    (shards / "a.tar").write_bytes(b"")
    (shards / "b.tar").write_bytes((shards / "b.tar").read_bytes()[: last + 100])
    (shards / "d.tar").write_bytes(b"no tar at all" * 100)
    writer = build_index(str(shards), str(tmp_path / "index.parquet"))
    names = [row.name for row in Index(writer.uri)]
    assert names == ["b.tar/0.mp4", "b.tar/1.mp4", "c.tar/0.mp4", "c.tar/1.mp4", "c.tar/2.mp4"]
    assert [(bad.name, bad.code) for bad in writer.rejected][:3] == [
        ("a.tar", "open"),
        ("b.tar/2.mp4", "open"),
        ("b.tar", "open"),
    ]
    assert writer.rejected[-1].name == "d.tar"


def test_the_rejected_files_of_an_earlier_index_are_forgotten(tmp_path: Path) -> None:
    folder = write_videos(tmp_path / "v", 1)
    (folder / "bad.mp4").write_text("no video")
    index = str(tmp_path / "index.parquet")
    assert build_index(str(folder), index).rejected
    (folder / "bad.mp4").unlink()
    build_index(str(folder), index)
    assert read_rejected(index) == []


def test_a_name_that_is_no_text_is_rejected(tmp_path: Path) -> None:
    folder = write_videos(tmp_path / "v", 1)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.mp4")).write_bytes(b"x")
    writer = build_index(str(folder), str(tmp_path / "index.parquet"))
    assert [(bad.name, bad.reason) for bad in writer.rejected] == [("\\udcff.mp4", "its name is no UTF-8")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_frames", 1 << 40),
        ("num_frames", "8"),
        ("fps", float("nan")),
        ("codec", "\ud800"),
        ("key_frames", [0, 1]),
        ("key_positions", [1 << 40]),
        ("key_timestamps", [1.5]),
        ("header", [0]),
        ("header", None),
        ("more", 1),
    ],
)
def test_facts_that_no_index_could_hold_are_not_believed(name: str, value: object) -> None:
    lists = {"key_frames": [0], "key_timestamps": [-512], "key_positions": [-1], "header": [0, 1000]}
    facts = {"codec": "h264", "width": 8, "height": 8, "num_frames": 5, "fps": 25.0, **lists}
    assert checked_facts(facts, 1000) == facts
    with pytest.raises(DecodeError, match="answers out of order"):
        checked_facts({**facts, name: value}, 1000)


def test_the_job_tries_its_place_before_it_reads_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs import index as job

    monkeypatch.setattr(job, "build_index", lambda *_, **__: pytest.fail("videos were read"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="a part of this path is a file"):
        job.main(["--data", str(write_videos(tmp_path / "v", 1)), "--out", str(tmp_path / "file" / "index.parquet")])


def test_the_fingerprint_follows_names_and_sizes(tmp_path: Path) -> None:
    folder = write_videos(tmp_path / "v", 2)
    first = build_index(str(folder), str(tmp_path / "a.parquet"))
    again = build_index(str(folder), str(tmp_path / "b.parquet"))
    (folder / "left" / "0.mp4").write_bytes((folder / "right" / "1.mp4").read_bytes() + b"\0")
    other = build_index(str(folder), str(tmp_path / "c.parquet"))
    fingerprints = [Index(writer.uri).fingerprint for writer in (first, again, other)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def row(number: int) -> dict[str, object]:
    lists = {name: [0] for name in ("key_frames", "key_timestamps", "key_positions")}
    plain = {"uri": f"s3://b/{number:08d}.mp4", "name": f"{number}", "etag": "", "label": None, "codec": "h264"}
    numbers = {"byte_start": 0, "num_bytes": 10, "width": 8, "height": 8, "num_frames": 5, "fps": 5.0}
    return {**plain, **numbers, **lists, "header": []}


def test_a_large_index_is_read_a_row_group_at_a_time(tmp_path: Path) -> None:
    writer = IndexWriter(str(tmp_path / "index.parquet"), "test")
    for number in range(2 * GROUP_VIDEOS + 5):
        writer.add(row(number))
    writer.close()
    index = Index(writer.uri)
    assert index.num_videos == 2 * GROUP_VIDEOS + 5
    assert [each.video_id for each in map(index.row, [2 * GROUP_VIDEOS + 4, 0, GROUP_VIDEOS])] == [4100, 0, 2048]
    assert len(index._groups) == 3


def test_the_list_of_rejected_files_is_plain_json_lines(tmp_path: Path) -> None:
    writer = IndexWriter(str(tmp_path / "index.parquet"), "test")
    writer.add(row(0))
    writer.reject(Rejected("bad.mp4", "open", "why"))
    writer.close()
    lines = (tmp_path / "index.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"name": "bad.mp4", "code": "open", "reason": "why"}]


def test_what_is_no_index_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing")
    for name in ("none.parquet", "x.parquet"):
        with pytest.raises(DataError, match=r"make one with `python -m jobs.index`"):
            Index(str(tmp_path / name))


def test_threads_may_share_an_index(generated: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from tests.small import stream_spec, tiny_recipe

    uri = stream_spec(tiny_recipe(generated), 1).index_uri
    for _ in range(5):  # the first read of a group is the one that is not safe without a lock
        index = Index(uri)
        with ThreadPoolExecutor(8) as pool:
            assert [row.video_id for row in pool.map(index.row, [*range(16)] * 4)] == [*range(16)] * 4
