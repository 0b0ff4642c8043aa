from __future__ import annotations

import shutil
from errno import EACCES
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from system.data.sources import build_index
from system.data.synthetic import encode, moving_video
from system.doctor.survey import Survey, difference, survey
from system.errors import DataError
from system.recipe import load_recipe
from tests.conftest import RECIPES, TINY


def looked(uri: Path | str, tmp_path: Path, count: int | None = None) -> Survey:
    recipe = load_recipe(RECIPES / "smoke.yaml", [*TINY, f"run.storage={tmp_path}"])
    return survey(str(uri), recipe, count, 2, lambda line: None)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three that move, one that does not, one that is short, a copy, and broken ones."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        (folder / f"moving{number}.mp4").write_bytes(moving_video(0, number, size=(48, 48), num_frames=16)[1])
    grey = np.full((48, 48, 3), 90, np.uint8)
    (folder / "still.mp4").write_bytes(encode(iter([grey] * 16), 48, 48))
    (folder / "short.mp4").write_bytes(moving_video(0, 9, size=(48, 48), num_frames=3)[1])
    shutil.copy(folder / "moving1.mp4", folder / "copy.mp4")
    good = (folder / "moving0.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(good[: len(good) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    where = good.index(b"mdat") + 200  # the frames are damaged, the header says nothing of it
    (folder / "damaged.mp4").write_bytes(good[:where] + b"\xff" * (len(good) - where))
    return folder


def test_a_survey_of_all_videos_says_what_each_of_them_is(videos: Path, tmp_path: Path) -> None:
    found = looked(videos, tmp_path)
    assert (found.total, found.looked_at, found.index_videos) == (9, 9, None)
    assert set(found.bad) == {"truncated.mp4", "empty.mp4", "damaged.mp4"}
    assert all(code and reason for code, reason in found.bad.values())
    assert set(found.clips) == {"moving0.mp4", "moving1.mp4", "moving2.mp4", "still.mp4", "short.mp4", "copy.mp4"}
    levels = {name: clip.difference for name, clip in found.clips.items()}
    assert levels.pop("still.mp4") < 1 < min(levels.values())
    assert found.same == [["copy.mp4", "moving1.mp4"]]
    assert {row.name: row.num_frames for row in found.videos}["short.mp4"] == 3


def test_a_sample_is_compared_with_what_is_outside_of_it(videos: Path, tmp_path: Path) -> None:
    found = [looked(videos, tmp_path, count) for count in (1, 4)]
    assert [each.looked_at for each in found] == [1, 4]
    assert [each.total for each in found] == [9, 9]
    names = {name for each in found for name in [*each.clips, *each.bad]}
    assert len(names) >= 4
    for each in found:
        has_one = {"copy.mp4", "moving1.mp4"} & each.clips.keys()
        assert each.same == ([["copy.mp4", "moving1.mp4"]] if has_one else [])


def test_an_index_is_looked_at_as_a_folder_is_and_its_age_is_seen(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("moving0.mp4", "moving1.mp4", "empty.mp4"):
        shutil.copy(videos / name, folder)
    build_index(str(folder), f"{folder}/index.parquet")
    assert looked(folder, tmp_path).index_videos == 3
    (folder / "moving0.mp4").unlink()
    by_index = looked(folder / "index.parquet", tmp_path)
    assert (by_index.total, set(by_index.clips), by_index.bad["moving0.mp4"][0]) == (2, {"moving1.mp4"}, "storage")
    after = looked(folder, tmp_path)
    assert (after.index_videos, after.total) == (3, 2)


def test_one_video_that_may_not_be_read_says_nothing_of_the_others(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("moving0.mp4", "moving1.mp4"):
        shutil.copy(videos / name, folder)
    opened = Path.open

    def refused(path: Path, *given: Any, **named: Any) -> Any:  # root may read every file
        if path == folder / "moving0.mp4":
            raise PermissionError(EACCES, "Permission denied", str(path))
        return opened(path, *given, **named)

    monkeypatch.setattr(Path, "open", refused)
    found = looked(folder, tmp_path)
    assert found.bad["moving0.mp4"] == ("storage", f"{folder}/moving0.mp4: permission denied")
    assert set(found.clips) == {"moving1.mp4"}


@pytest.mark.parametrize(("name", "says"), [("none", "there is no such folder"), ("empty", "holds no videos")])
def test_where_there_is_nothing_to_look_at_the_error_says_so(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=says):
        looked(tmp_path / name, tmp_path)


def test_frames_that_stand_still_differ_by_nothing() -> None:
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    assert difference(frames) == 0
    assert difference(frames[:1]) == 0
    frames[2] = 30
    assert difference(frames) == 15
