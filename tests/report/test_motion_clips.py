from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from system.core.warp import Sampler
from system.data.augment import Box
from system.data.synthetic import moving_scene
from system.errors import DecodeError
from system.recipe import Recipe
from system.report.motion_clips import Flow, flow_in_crop, motion_clips
from system.report.motion_comparison import comparison_recipe
from tests.small import tiny_recipe

DATA = "synthetic://moving?videos=6&frames=48&height=96&width=128"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = str(tmp_path_factory.mktemp("motion"))
    return comparison_recipe(DATA, folder, num_frames=4, size=64, stride=4, mask_ratio=0.5)


@pytest.fixture(scope="module")
def index(recipe: Recipe) -> str:
    from system.data.dataset import ensure_index

    return ensure_index(recipe)


def refuse(name: str, error: DecodeError) -> None:
    raise AssertionError(f"{name}: {error}")


def test_flow_of_the_whole_frame_is_the_frames_own() -> None:
    flow = moving_scene(0, 4, size=(64, 64), num_frames=16).flow(2, 6)
    assert (flow_in_crop(flow, Box(0, 0, 64, 64), 64) == flow).all()


def test_flow_in_a_crop_is_that_of_its_place_in_px_of_the_square_axis_by_axis() -> None:
    ys, xs = np.mgrid[:40, :60].astype(np.float32)
    flow: Flow = np.stack([xs, ys], -1)
    cut = flow_in_crop(flow, Box(10, 4, 40, 20), 80)
    assert cut.shape == (80, 80, 2)
    # Each px of the crop is 2 wide and 4 high in the square, and so is its motion.
    assert (cut[0, 0] == [2 * 10, 4 * 4]).all()
    assert (cut[-1, -1] == [2 * 49, 4 * 23]).all()


def warped(frame: NDArray[np.uint8], flow: Flow) -> NDArray[np.float32]:
    channels, there = torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)[None], torch.from_numpy(flow)[None]
    return np.asarray(Sampler(there)(channels, there)[0].permute(1, 2, 0).numpy(), np.float32)


def test_the_truth_of_a_cropped_clip_carries_its_frames_onto_each_other(recipe: Recipe, index: str) -> None:
    pairs = recipe.record.pairs(recipe.method, 4)
    clips = list(motion_clips(recipe, index, 6, refuse))
    assert len(clips) == 6
    for clip in clips:
        assert clip.frames.shape == (4, 64, 64, 3)
        assert clip.truth is not None
        for flow, (a, b) in zip(clip.truth, pairs, strict=True):
            moves = np.hypot(flow[..., 0], flow[..., 1]) > 1
            if moves.sum() < 20:
                continue
            first = clip.frames[a].astype(np.float32)
            before = np.abs(clip.frames[b].astype(np.float32) - first)[moves].mean()
            after = np.median(np.abs(warped(clip.frames[b], flow) - first)[moves])
            assert after < max(4, 0.5 * before)  # of 255; compression alone is 2 or so


def test_videos_that_are_not_generated_on_the_spot_have_no_truth(generated: Path) -> None:
    folder = next((generated / "synthetic").iterdir())
    recipe = tiny_recipe(generated, f"data.uri={folder}", "run.name=untold")
    (clip,) = motion_clips(recipe, str(folder / "index.parquet"), 1, refuse)
    assert clip.truth is None


def test_a_clip_that_cannot_be_decoded_is_told_and_left_out(recipe: Recipe, index: str, tmp_path: Path) -> None:
    from system.data.index import Index
    from system.data.sources import build_index

    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.mp4").write_bytes(Path(Index(index).row(number).uri).read_bytes())
    build_index(str(folder), str(folder / "index.parquet"))
    whole = (folder / "1.mp4").read_bytes()
    (folder / "1.mp4").write_bytes(whole[:200] + bytes(len(whole) - 200))
    told: list[str] = []
    clips = motion_clips(recipe, str(folder / "index.parquet"), 3, lambda name, _error: told.append(name))
    assert sorted(clip.name for clip in clips) == ["0.mp4", "2.mp4"]
    assert told == ["1.mp4"]
