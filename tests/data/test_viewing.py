"""The views of videos: which frames, which squares, and what of a video that cannot be read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from system.core.clip import token_grid
from system.core.views import SquareCrop, Views
from system.data.columns import Batch
from system.data.index import Index
from system.data.scale import Scaler
from system.data.sources import build_index
from system.data.synthetic import moving_video
from system.data.viewing import ViewDecoder, ViewReader, ViewSpec, together

SPEC = ViewSpec(token_grid(4, 32, 2, 16), 2, Views("dense", 3, 3))
FRAMES = 40


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        (folder / f"{number}.mp4").write_bytes(moving_video(0, number, size=(48, 80), num_frames=FRAMES)[1])
    build_index(str(folder), str(folder / "index.parquet"))
    return folder


@contextmanager
def stages(index: Index, spec: ViewSpec = SPEC) -> Iterator[tuple[ViewReader, ViewDecoder]]:
    with closing(ViewDecoder(index, spec)) as decode:
        yield ViewReader(index, spec), decode


def seen(index: Index, *ids: int, spec: ViewSpec = SPEC) -> Batch:
    with stages(index, spec) as (read, decode):
        return decode(read({"video_id": np.array(ids)}))


def plainly(path: Path, numbers: tuple[int, ...], crop: SquareCrop, size: int) -> np.ndarray:
    """Decode a whole video and take one view of it."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return np.concatenate([Scaler((crop,), size).views(frames[number]) for number in numbers])


def test_views_are_the_frames_and_squares_that_they_should_be_clip_by_clip(videos: Path) -> None:
    index = Index(str(videos / "index.parquet"))
    out = seen(index, 2, 0)
    assert out["video_id"].tolist() == [2, 0]
    assert out["frames"].shape == (2, 9, 4, 32, 32, 3)
    assert out["seen"].all()
    assert out["error"].tolist() == ["", ""]
    # Twenty frames are taken, every second one; windows of four start at the taken frames 0, 8 and 16.
    for clip, start in enumerate((0, 16, 32)):
        for crop in range(3):
            wanted = plainly(videos / "2.mp4", tuple(range(start, start + 8, 2)), SquareCrop(crop, 3), 32)
            assert (out["frames"][0, 3 * clip + crop] == wanted).all()


def test_segments_share_frames_and_each_view_gets_its_own(videos: Path) -> None:
    spec = replace(SPEC, views=Views("segments", 2, 1))
    out = seen(Index(str(videos / "index.parquet")), 1, spec=spec)
    for view, numbers in enumerate(((0, 10, 20, 30), (5, 15, 25, 35))):
        assert (out["frames"][0, view] == plainly(videos / "1.mp4", numbers, SquareCrop(0, 1), 32)).all()


def test_clips_between_which_no_key_frame_lies_are_decoded_at_once(videos: Path) -> None:
    video = next(iter(Index(str(videos / "index.parquet"))))
    clips = [(0, 2), (20, 22), (30, 32), (31, 33)]
    assert together(replace(video, key_frames=[0]), clips) == [[0, 1, 2, 3]]
    assert together(replace(video, key_frames=[0, 15, 25]), clips) == [[0], [1], [2, 3]]
    assert together(replace(video, key_frames=[0, 20, 31]), clips) == [[0], [1, 2, 3]]
    assert together(replace(video, key_frames=[]), [(5, 9), (0, 6)]) == [[1, 0]]


def test_a_video_that_is_gone_is_a_row_with_its_reason(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(videos, folder, ignore=shutil.ignore_patterns("*.parquet"))
    build_index(str(folder), str(folder / "index.parquet"))
    (folder / "1.mp4").unlink()
    out = seen(Index(str(folder / "index.parquet")), 0, 1, 2)
    assert out["video_id"].tolist() == [0, 1, 2]
    assert out["seen"].all(1).tolist() == [True, False, True]
    assert out["error"][1].startswith("storage: ")
    assert out["error"].tolist()[::2] == ["", ""]
    assert not out["frames"][1].any()


def test_neighbours_that_are_all_gone_are_rows_as_well(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for number in range(4):
        shutil.copy(videos / "0.mp4", folder / f"{number}.mp4")
    build_index(str(folder), str(folder / "index.parquet"))
    for path in folder.glob("*.mp4"):
        path.unlink()
    read = ViewReader(Index(str(folder / "index.parquet")), SPEC)({"video_id": np.arange(4)})
    assert all(error.startswith("storage: ") for error in read["error"])


def damage(path: Path, first: int) -> None:
    """Overwrite a video's packets from one on, in the order of their decoding."""
    whole = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    begin, last = packets[first].pos, packets[-1]
    assert begin is not None and last.pos is not None
    end = last.pos + last.size
    path.write_bytes(whole[:begin] + b"\xff" * (end - begin) + whole[end:])


def test_a_video_that_is_damaged_at_its_end_still_gives_its_first_views(tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "0.mp4").write_bytes(moving_video(0, 5, size=(48, 80), num_frames=FRAMES)[1])
    build_index(str(folder), str(folder / "index.parquet"))
    damage(folder / "0.mp4", 30)  # after the first two clips, before the end of the third
    out = seen(Index(str(folder / "index.parquet")), 0)
    assert out["seen"][0].tolist() == [True] * 6 + [False] * 3
    assert out["error"][0]
    assert out["frames"][0, :6].reshape(6, -1).std(1).min() > 1
