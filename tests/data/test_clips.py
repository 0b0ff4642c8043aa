from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from system import storage
from system.data.assemble import clip_maker
from system.data.clips import WHOLE_BYTES, ClipMaker, fetch, key_frame_before, wanted_ranges
from system.data.dataset import ensure_index
from system.data.index import VideoRow
from system.data.sandbox import Answer, Limits, Sandbox
from system.errors import DecodeError
from tests.data.test_decode import encoded, whole
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


def test_the_key_frame_before_a_frame_and_a_time_before_the_next() -> None:
    seek = key_frame_before(long_row(), 149)
    assert seek is not None
    assert (seek.frame, seek.timestamp, seek.target) == (100, 100, 125)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_long_video_decodes_from_its_ranges_alone(
    tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch, generated: Path
) -> None:
    from system.data import clips
    from system.data.probe import probe_video

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
    (segments,) = fetch(maker, [choice])
    assert not isinstance(segments, DecodeError)
    assert sum(len(part) for _, part in segments) < len(data) // 4
    sandbox = Sandbox(4 * 32 * 32 * 3, Limits())
    sparse, full = (sandbox.one(maker.job(choice, parts)) for parts in (segments, ((0, data),)))
    assert isinstance(sparse, Answer)
    assert isinstance(full, Answer)
    assert sparse.frames is not None
    assert (sparse.frames == full.frames).all()
    sandbox.close()


def test_fetching_reports_a_missing_object_for_its_slot_alone(maker: ClipMaker, tmp_path: Path) -> None:
    good, other = maker.choose(0), maker.choose(1)
    gone = replace(other, video=replace(other.video, uri=str(tmp_path / "gone.mp4")))
    found = fetch(maker, [good, gone])
    assert not isinstance(found[0], DecodeError)
    assert isinstance(found[1], DecodeError)
    assert found[1].code == "storage"


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
    found = fetch(maker, parts)
    assert calls == [(100, 2500)]
    assert [part[0][1] for part in found if not isinstance(part, DecodeError)] == [
        data[100:600],
        data[2000:2500],
        data[700:1200],
    ]
