from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from system.data.dataset import ensure_index
from system.data.frames import clip_frames
from tests.small import tiny_recipe


def test_frames_are_crops_of_the_runs_videos_and_the_same_every_time(generated: Path) -> None:
    recipe = tiny_recipe(generated, "data.views=2")
    first = list(clip_frames(recipe, ensure_index(recipe), 1000))
    again = list(clip_frames(recipe, ensure_index(recipe), 1000))
    frames = torch.cat(first)
    assert frames.shape == (16 * 2 * 4, 3, 32, 32)  # videos x views x frames of a clip
    assert frames.dtype == torch.uint8
    assert float(frames.float().std()) > 10
    assert torch.equal(frames, torch.cat(again))


@pytest.mark.parametrize(("wanted", "got"), [(1, 4), (9, 12), (64, 64), (65, 64)])
def test_no_more_videos_are_read_than_it_takes_and_none_twice(generated: Path, wanted: int, got: int) -> None:
    recipe = tiny_recipe(generated)
    assert sum(len(part) for part in clip_frames(recipe, ensure_index(recipe), wanted)) == got


def test_four_frames_of_a_long_clip_are_taken_first_and_last_among_them(generated: Path) -> None:
    recipe = tiny_recipe(generated, "data.num_frames=8", "data.stride=1")
    assert sum(len(part) for part in clip_frames(recipe, ensure_index(recipe), 1000)) == 16 * 4


def test_a_video_that_cannot_be_read_gives_no_black_frames(generated: Path, tmp_path: Path) -> None:
    """A spare stands in for it, as it does in the run."""
    shutil.copytree(generated / "synthetic", tmp_path / "synthetic")
    recipe = tiny_recipe(tmp_path)
    index_uri = ensure_index(recipe)
    for path in sorted((tmp_path / "synthetic").rglob("*.mp4"))[:3]:
        path.write_bytes(bytes(path.stat().st_size))
    frames = torch.cat(list(clip_frames(recipe, index_uri, 1000)))
    assert len(frames) == 64
    assert int(frames.flatten(1).amax(1).min()) > 0
