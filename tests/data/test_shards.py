from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from system import storage
from system.data.dataset import ensure_index
from system.data.index import Index
from system.data.process import Process
from system.data.sandbox import Answer, Limits, Sandbox, transcode_job
from system.data.shards import Layout, ShardOptions, make_shards
from system.data.sources import build_index, stored_video
from system.data.synthetic import moving_video
from system.errors import DataError, ResumeError, StorageFault
from tests.small import tiny_recipe

LAYOUTS: tuple[Layout, ...] = ("as-is", "short-gop")


@pytest.fixture
def source(generated: Path) -> Index:
    return Index(ensure_index(tiny_recipe(generated)))


def test_as_is_keeps_every_byte_and_the_labels(source: Index, tmp_path: Path) -> None:
    make_shards(source, str(tmp_path), ShardOptions("as-is", videos_per_shard=5))
    packed = Index(str(tmp_path / "index.parquet"))
    assert packed.num_videos == 16
    assert len(list(tmp_path.glob("*.tar"))) == 4
    for before, after in zip(source, packed, strict=True):
        same = storage.read(after.uri, after.byte_start, after.byte_start + after.num_bytes)
        assert same == Path(before.uri).read_bytes()
        assert (after.name, after.label, after.num_frames) == (before.name, before.label, before.num_frames)


def test_a_shard_is_a_tar_that_any_tool_reads_and_indexing_it_finds_the_same_ranges(
    source: Index, tmp_path: Path
) -> None:
    make_shards(source, str(tmp_path / "s"), ShardOptions("as-is", videos_per_shard=16))
    with tarfile.open(tmp_path / "s" / "shard-000000.tar") as tar:
        assert len(tar.getmembers()) == 16
    found = Index(build_index(str(tmp_path / "s"), str(tmp_path / "i.parquet")).uri)
    packed = Index(str(tmp_path / "s" / "index.parquet"))
    assert [(row.byte_start, row.num_bytes) for row in found] == [(row.byte_start, row.num_bytes) for row in packed]


def test_short_gop_is_smaller_and_has_its_key_frames_close_together(source: Index, tmp_path: Path) -> None:
    make_shards(source, str(tmp_path), ShardOptions("short-gop", short_side=32, key_every=4))
    for row in Index(str(tmp_path / "index.parquet")):
        assert (row.height, row.width, row.num_frames) == (32, 32, 16)
        assert row.key_frames == [0, 4, 8, 12]
        assert row.codec == "h264"


def test_the_children_of_a_shard_end_with_it(source: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Process] = []
    living: list[int] = []
    begin = Process.__init__

    def noted(self: Process, *values: Any) -> None:
        begin(self, *values)
        started.append(self)

    def look(done: int, total: int) -> None:
        living.append(sum(each._process.poll() is None for each in started))

    monkeypatch.setattr(Process, "__init__", noted)
    make_shards(source, str(tmp_path), ShardOptions("as-is", videos_per_shard=8), workers=1, progress=look)
    assert len(started) == 2
    assert max(living) == 1
    assert living[-1] == 0


@pytest.mark.slow
def test_a_job_that_was_ended_goes_on_where_it_was(source: Index, tmp_path: Path) -> None:
    options = ShardOptions("as-is", videos_per_shard=4)
    make_shards(source, str(tmp_path), options)
    first = Index(str(tmp_path / "index.parquet"))
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    for name in ("shard-000002.json", "index.parquet"):
        (tmp_path / name).unlink()
    make_shards(source, str(tmp_path), options)
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    assert [name for name in kept if kept[name] != again[name]] == ["shard-000002.tar"]
    assert list(Index(str(tmp_path / "index.parquet"))) == list(first)


def test_the_job_does_not_take_the_index_of_other_videos_that_it_made_in_the_same_place(tmp_path: Path) -> None:
    from jobs.make_shards import main

    for folder in ("v", "w"):
        data = moving_video(0, 0, size=(48, 48), num_frames=8)[1]
        storage.write(str(tmp_path / folder / f"{folder}.mp4"), data)
    out = str(tmp_path / "out")
    assert main(["--data", str(tmp_path / "v"), "--out", out, "--workers", "1"]) == 0
    with pytest.raises(ResumeError, match=r"source\.parquet is of .*/v, not of .*/w"):
        main(["--data", str(tmp_path / "w"), "--out", out, "--workers", "1"])


def test_shards_are_gone_on_with_from_the_index_that_they_were_begun_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.make_shards import main

    storage.write(str(tmp_path / "v" / "a.mp4"), moving_video(0, 0, size=(48, 48), num_frames=8)[1])
    given = ["--data", str(tmp_path / "v"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(given) == 0
    build_index(str(tmp_path / "v"), str(tmp_path / "v" / "index.parquet"))
    assert main(given) == 0
    assert capsys.readouterr().out.count(f"1 videos of {tmp_path}/out/source.parquet") == 2
    others = str(tmp_path / "others")
    assert main(["--data", str(tmp_path / "v"), "--out", others, "--workers", "1"]) == 0
    assert f"1 videos of {tmp_path}/v/index.parquet" in capsys.readouterr().out


def test_shards_made_otherwise_are_not_mixed(source: Index, tmp_path: Path) -> None:
    make_shards(source, str(tmp_path), ShardOptions("as-is"))
    with pytest.raises(DataError, match="layout: there 'as-is', now 'short-gop'"):
        make_shards(source, str(tmp_path), ShardOptions("short-gop"))


@pytest.mark.slow
def test_a_source_that_is_gone_is_left_out_and_one_that_is_refused_ends_the_job(
    source: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, honest = source.row(3), storage.read
    error: Exception = storage.MissingError("there is no such object")

    def refuse_one(uri: str, start: int = 0, stop: int | None = None) -> bytes:
        if uri == victim.uri:
            raise error
        return honest(uri, start, stop)

    monkeypatch.setattr(storage, "read", refuse_one)
    for number, layout in enumerate(LAYOUTS):
        writer = make_shards(source, str(tmp_path / str(number)), ShardOptions(layout))
        assert [(bad.name, bad.code) for bad in writer.rejected] == [(victim.name, "storage")]
    error = StorageFault("the store is away")
    for number, layout in enumerate(LAYOUTS, start=2):
        with pytest.raises(StorageFault):
            make_shards(source, str(tmp_path / str(number)), ShardOptions(layout))


def test_real_files_are_re_encoded(real_videos: Path, tmp_path: Path) -> None:
    for name in ("h265_video.mp4", "av1_video.mkv", "realshort.mp4"):
        file = real_videos / name
        sandbox = Sandbox(1, Limits(deadline_s=120))
        video = stored_video(str(file), 0, file.stat().st_size)
        answer = sandbox.one(transcode_job(video, short_side=64, key_every=8, crf=30))
        sandbox.close()
        assert isinstance(answer, Answer), answer
        assert len(answer.data) > 500
