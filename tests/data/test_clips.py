from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from system import storage
from system.data.assemble import clip_maker
from system.data.clips import START_BYTES, WHOLE_BYTES, ClipMaker, key_frame_before, wanted_ranges
from system.data.dataset import ensure_index
from system.data.index import VideoRow
from system.data.probe import probe_video
from system.data.reading import fetch
from system.data.sandbox import Answer, Limits, Sandbox
from system.errors import DataError, DecodeError, StorageFault
from tests.data.test_decode import encoded, images, whole
from tests.small import tiny_recipe


@pytest.fixture
def maker(generated: Path) -> ClipMaker:
    recipe = tiny_recipe(generated, "data.views=3", "train.global_batch=18")
    return clip_maker(recipe, ensure_index(recipe))


def test_a_slots_clip_is_a_function_of_the_slot(maker: ClipMaker) -> None:
    for slot in (0, 5, 17, 300):
        first, second = maker.choose(slot), maker.choose(slot)
        assert first == second
        assert maker.request(first) == maker.request(second)
        assert (maker.noise(slot) == maker.noise(slot)).all()


def test_views_have_draws_of_their_own_and_share_the_frames(maker: ClipMaker) -> None:
    crops = [maker.crops(slot) for slot in range(30)]
    assert len({crop for each in crops for crop in each}) > 30
    noise = maker.noise(0)
    assert noise.shape == (3, maker.spec.grid.slots, maker.spec.grid.places)
    assert (noise[0] != noise[1]).all()
    assert (noise >= 0).all()
    assert (noise < 1).all()


def test_starts_spread_over_all_that_fit(maker: ClipMaker) -> None:
    starts = [maker.choose(slot).start for slot in range(200)]
    assert set(starts) == set(range(16 - 4 * 2 + 1))


def test_another_attempt_is_another_video_with_its_own_start(maker: ClipMaker) -> None:
    videos = {maker.choose(slot, attempt).video.video_id for slot in range(20) for attempt in (1, 2, 3)}
    assert len(videos) > 10
    assert len({maker.start_at(0, attempt, 1_000_000, 0) for attempt in range(4)}) == 4


def long_row(num_bytes: int = 40 << 20, keys: int = 100) -> VideoRow:
    frames = list(range(0, keys * 50, 50))
    positions = [1000 + number * (num_bytes - 5000) // keys for number in range(keys)]
    header = [0, 1000, num_bytes - 4000, num_bytes]
    return VideoRow(
        0, "u", "n", 0, num_bytes, "", None, "h264", 1, 1, keys * 50, 25.0, 0.0, frames, frames, positions, header
    )


def test_a_small_video_is_read_whole() -> None:
    row = replace(long_row(), num_bytes=WHOLE_BYTES)
    assert wanted_ranges(row, 100, 160) == [(0, WHOLE_BYTES)]


def test_of_a_long_video_only_the_header_and_the_clips_groups_are_read() -> None:
    row = long_row()
    ranges = wanted_ranges(row, 120, 190)
    assert sum(stop - start for start, stop in ranges) < 2 << 20
    covered = [
        (start, stop) for start, stop in ranges if start <= row.key_positions[2] and row.key_positions[4] <= stop
    ]
    assert covered  # frames 100 to 199
    assert ranges[0][0] == 0
    assert ranges[-1][1] == row.num_bytes


def test_a_clip_at_the_end_reads_to_the_end() -> None:
    row = long_row()
    assert wanted_ranges(row, 4960, 4999)[-1][1] == row.num_bytes


def test_a_container_that_does_not_say_where_its_key_frames_are_is_read_whole() -> None:
    row = replace(long_row(), key_positions=[-1] * 100)
    assert wanted_ranges(row, 100, 160) == [(0, row.num_bytes)]


@pytest.mark.parametrize("keys", ["none", "without positions", "one at the start"])
def test_of_a_very_long_video_without_usable_key_frames_the_start_is_read(keys: str) -> None:
    row = long_row(num_bytes=2 << 30)
    if keys == "none":
        row = replace(row, key_frames=[], key_timestamps=[], key_positions=[])
    elif keys == "without positions":
        row = replace(row, key_positions=[-1] * 100)
    else:
        row = replace(row, key_frames=[0], key_timestamps=[0], key_positions=[1000])
    ranges = wanted_ranges(row, 100, 160)
    assert ranges[0] == (0, START_BYTES)
    assert ranges[-1] == (row.num_bytes - 4000, row.num_bytes)
    assert sum(stop - start for start, stop in ranges) < 2 * START_BYTES


def test_a_header_that_lies_all_over_a_very_long_video_is_not_sent() -> None:
    row = replace(long_row(num_bytes=2 << 30), header=[0, 2 << 30], key_positions=[-1] * 100)
    assert wanted_ranges(row, 100, 160) == [(0, START_BYTES)]


def test_the_key_frame_before_a_frame_and_a_time_before_the_next() -> None:
    seek = key_frame_before(long_row(), 149)
    assert seek is not None
    assert (seek.frame, seek.timestamp, seek.target) == (100, 100, 125)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_long_video_decodes_from_its_ranges_alone(
    tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch, generated: Path
) -> None:
    from system.data import clips

    noise = np.random.default_rng(0)
    made = [noise.integers(0, 256, (96, 96, 3), np.uint8) for _ in range(250)]
    data = encoded(made, container=container, options={"g": "10", "preset": "ultrafast", "crf": "20"})
    path = str(tmp_path / "long.mp4")
    storage.write(path, b"before" + data)
    facts = probe_video(whole(data))
    row = VideoRow(0, path, "long", 6, len(data), "", None, duration_s=0.0, **facts.as_dict())
    monkeypatch.setattr(clips, "WHOLE_BYTES", 1000)
    recipe = tiny_recipe(generated)
    maker = clip_maker(recipe, ensure_index(recipe))
    choice = clips.Choice(0, 0, row, 203)
    (segments,) = fetch([maker.reading(choice)])
    assert not isinstance(segments, DecodeError)
    assert sum(len(part) for _, part in segments) < len(data) // 4
    sandbox = Sandbox(4 * 32 * 32 * 3, Limits())
    sparse, full = (sandbox.one(maker.job(choice, parts)) for parts in (segments, ((0, data),)))
    assert isinstance(sparse, Answer)
    assert isinstance(full, Answer)
    assert sparse.frames is not None
    assert (sparse.frames == full.frames).all()
    sandbox.close()


@pytest.mark.parametrize("container", ["matroska", "mpegts", "flv"])
def test_a_very_long_video_without_key_frames_in_its_index_decodes_from_what_its_child_asks_for(
    tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch, generated: Path
) -> None:
    from system.data import clips

    data = encoded(images(100), container=container, options={"g": "10", "preset": "ultrafast", "crf": "4"})
    storage.write(str(tmp_path / "long"), data)
    facts = {**probe_video(whole(data)).as_dict(), "key_frames": [], "key_timestamps": [], "key_positions": []}
    row = VideoRow(0, str(tmp_path / "long"), "long", 0, len(data), "", None, duration_s=0.0, **facts)
    for name, value in (("WHOLE_BYTES", 1000), ("LONG_BYTES", 10_000), ("START_BYTES", 4000)):
        monkeypatch.setattr(clips, name, value)
    recipe = tiny_recipe(generated)
    maker = clip_maker(recipe, ensure_index(recipe))
    choice = clips.Choice(0, 0, row, 80)
    (segments,) = fetch([maker.reading(choice)])
    assert not isinstance(segments, DecodeError)
    assert sum(len(part) for _, part in segments) < 20_000
    sandbox = Sandbox(4 * 32 * 32 * 3, Limits())
    answers = [sandbox.one(maker.job(choice, parts)) for parts in (segments, ((0, data),))]
    found = [answer.frames for answer in answers if isinstance(answer, Answer) and answer.frames is not None]
    assert (found[0] == found[1]).all()
    sandbox.close()


def test_fetching_reports_a_missing_object_for_its_slot_alone(maker: ClipMaker, tmp_path: Path) -> None:
    good, other = maker.choose(0), maker.choose(1)
    gone = replace(other, video=replace(other.video, uri=str(tmp_path / "gone.mp4")))
    found = fetch([maker.reading(each) for each in (good, gone)])
    assert not isinstance(found[0], DecodeError)
    assert isinstance(found[1], DecodeError)
    assert found[1].code == "storage"


@pytest.mark.parametrize("error", [DataError("refused the credentials"), StorageFault("the store is away")])
def test_fetching_raises_what_is_no_fault_of_a_video(
    maker: ClipMaker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(storage, "read", refuse)
    with pytest.raises(type(error), match=str(error)):
        fetch([maker.reading(maker.choose(slot)) for slot in (0, 1)])


def test_a_video_that_was_replaced_by_a_shorter_one_is_bad_and_no_other(maker: ClipMaker, tmp_path: Path) -> None:
    good, other = maker.choose(0), maker.choose(1)
    storage.write(str(tmp_path / "short.mp4"), b"x" * 100)
    other = replace(other, video=replace(other.video, uri=str(tmp_path / "short.mp4")))
    found = fetch([maker.reading(each) for each in (good, other)])
    assert not isinstance(found[0], DecodeError)
    assert isinstance(found[1], DecodeError)
    assert "the object is 100 bytes, at least" in found[1].reason


def test_neighbours_in_one_object_are_fetched_together(
    maker: ClipMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(0).bytes(3000)
    storage.write(str(tmp_path / "shard.tar"), data)
    choice = maker.choose(0)
    parts = [
        replace(choice, video=replace(choice.video, uri=str(tmp_path / "shard.tar"), byte_start=start, num_bytes=500))
        for start in (100, 2000, 700)
    ]
    calls: list[tuple[int, int]] = []
    honest = storage.read

    def noted(uri: str, start: int, stop: int) -> bytes:
        calls.append((start, stop))
        return honest(uri, start, stop)

    monkeypatch.setattr(storage, "read", noted)
    found = fetch([maker.reading(part) for part in parts])
    assert calls == [(100, 2500)]
    assert [part[0][1] for part in found if not isinstance(part, DecodeError)] == [
        data[100:600],
        data[2000:2500],
        data[700:1200],
    ]


def test_what_is_read_of_a_small_video_is_known_from_its_place(
    maker: ClipMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = maker.own_readings(10, 40)
    assert own == [maker.reading(maker.choose(slot)) for slot in range(10, 40)]
    monkeypatch.setattr("system.data.clips.WHOLE_BYTES", 0)
    assert maker.own_readings(10, 12) == [None, None]
    assert maker.own_readings(7, 7) == []
