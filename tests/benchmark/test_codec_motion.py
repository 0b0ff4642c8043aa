"""What vectors add to decoding: the lines' arithmetic, and that what is timed is what a run makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from system.benchmark.codec_motion import decoded, lines, masked, measure, shards_of, work_of
from system.benchmark.stages import Asked
from system.benchmark.timing import Measured
from system.data.assemble import local_blocks
from system.recipe import load_recipe
from tests.conftest import RECIPES, TINY
from tests.small import stream_spec


def asked(scratch: Path, videos: str = "synthetic") -> Asked:
    return Asked(videos, str(scratch), "cpu", True, lambda _line: None)


def test_the_lines_are_the_rate_to_visible_and_the_percent_that_it_takes_longer() -> None:
    rate, more = lines({"alone": Measured((100.0, 110.0, 90.0)), "masked": Measured((80.0, 100.0, 75.0))}, "a clip")
    assert (rate.ours, rate.limit, rate.share) == (80.0, 100.0, 0.8)
    assert rate.reached() is True
    assert more.ours == pytest.approx(20.0)  # of 25, 10 and 20
    assert more.reached() is False
    assert more.says.endswith("a clip")


def test_a_short_measurement_has_both_lines(tmp_path: Path) -> None:
    rate, more = measure(asked(tmp_path))
    assert (rate.stage, more.stage) == ("mask", "mask")
    assert rate.ours > 0
    assert rate.says.endswith("2 clips")  # and none of them without vectors


def test_frames_are_those_of_decoding_alone_and_masks_those_of_a_run(tmp_path: Path) -> None:
    index = shards_of(asked(tmp_path))
    assert index is not None
    work = work_of(index, 1)
    frames, visible, fell_back = masked(work, work.choices[0])
    assert not fell_back
    assert (frames == decoded(work, work.choices[0])).all()
    changed = [line for line in TINY if not line.startswith(("data.", "method.", "train.global"))]
    recipe = load_recipe(
        RECIPES / "smoke.yaml",
        [
            *changed,
            *("method.name=mgm", "method.mask_ratio=0.9", f"run.storage={tmp_path}", "train.global_batch=1"),
            *("data.views=1", "data.num_frames=16", "data.size=224", "data.stride=4", "run.seed=0"),
            *(f"data.uri={index.uri}", "motion.source=codec"),
        ],
    )
    block = next(local_blocks(stream_spec(recipe, ranks=1, last_step=1), 0, 0))
    assert (block["frames"] == frames).all()
    assert (block["visible"] == visible).all()
    assert np.unique(visible.reshape(8, 196).sum(1)).tolist() == [20]


def test_a_folder_without_large_videos_has_no_lines(generated: Path, tmp_path: Path) -> None:
    videos = next(path for path in generated.rglob("*.mp4")).parent
    assert measure(asked(tmp_path, str(videos))) == ()
