from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from system.benchmark import decode
from system.benchmark.clip_sources import Sources, clips_of, sources
from system.benchmark.conventional_decode import conventional_clips, missing_packages
from system.benchmark.line import Line
from system.benchmark.stages import Asked
from system.core.targets import IMAGENET_MEAN, IMAGENET_STD
from system.data.sandbox import Limits, Sandbox

has_peer = pytest.mark.skipif(bool(missing_packages()), reason="decord and Pillow are not installed")


def asked(folder: Path, said: list[str]) -> Asked:
    return Asked("synthetic", str(folder), "cpu", True, said.append)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return sources(asked(tmp_path_factory.mktemp("sources"), []))


def test_generated_videos_stand_for_small_and_for_large_ones(found: Sources) -> None:
    assert found.small is not None and found.large is not None and found.layered is not None
    assert min(found.small.row(0).width, found.small.row(0).height) < 720
    assert found.large.row(0).height == 720
    assert (found.layered.row(0).height, found.layered.row(0).layers) == (256, 4)


@has_peer
@pytest.mark.parametrize("views", [1, 2])
def test_the_conventional_way_shows_the_same_crops(found: Sources, views: int) -> None:
    assert found.small is not None
    clips = clips_of(found.small, views, 1)
    choice = clips.choices[0]
    request = clips.maker.request(choice)
    tensors = conventional_clips(Path(choice.video.uri), request.frames, request.crops, 224)
    ours = decode.decode_one(clips.maker, choice)
    assert ours.shape == (views, 16, 224, 224, 3)
    for tensor, view in zip(tensors, ours, strict=True):
        assert tensor.shape == (3, 16, 224, 224)
        pixels = (tensor.numpy().transpose(1, 2, 3, 0) * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)) * 255
        assert np.abs(pixels - view).mean() < 4


def test_what_a_folder_does_not_hold_is_left_out_and_said(found: Sources, tmp_path: Path) -> None:
    said: list[str] = []
    assert decode.lines_of(asked(tmp_path, said), Sources(None, None, None)) == []
    assert [line for line in said if "no small videos" in line] and [line for line in said if "720 lines" in line]


def test_the_limit_decodes_what_our_way_decodes(found: Sources) -> None:
    for index in (found.small, found.layered):
        assert index is not None
        clips = clips_of(index, 1, 1)
        wanted = [clips.maker.request(choice).frames for choice in clips.choices]
        assert decode.frames_decoded(clips) >= sum(len(set(frames)) for frames in wanted) > 0
        assert decode.codec_alone(clips) == clips.count


def test_a_child_gives_as_many_clips(found: Sources) -> None:
    assert found.small is not None
    clips = clips_of(found.small, 2, 1)
    sandbox = Sandbox(2 * 16 * 224 * 224 * 3, Limits())
    try:
        assert decode.through_child(clips, sandbox) == clips.count == 2
    finally:
        sandbox.close()


def test_every_line_of_the_stage_is_measured(found: Sources, tmp_path: Path) -> None:
    lines = decode.lines_of(asked(tmp_path, []), found)
    by_name: dict[str, Line] = {line.name: line for line in lines}
    assert len(by_name) == len(lines) == 6
    for name in ("original files, 1 view", "original files, 4 views", "layered from 720p, 1 view"):
        line = by_name[name]
        assert line.ours > 0 and line.share is not None and line.targets
        assert (line.ratio is None) == bool(missing_packages())
        assert not by_name[f"{name}, in a child"].targets
