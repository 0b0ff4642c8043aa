"""Plans of large sets, and what their figures say."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from system.benchmark.large_index import BATCH, write_index
from system.benchmark.plan import lines, measure
from system.benchmark.planning import STEP_VIDEOS, conventional, maker_of, ours
from system.benchmark.stages import Asked
from system.data.index import GROUP_VIDEOS, SCHEMA, Index

VIDEOS = BATCH + 5000


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("plan") / "index.parquet"
    write_index(path, VIDEOS)
    return str(path)


def test_the_index_is_one_like_any_other_and_no_two_videos_overlap(uri: str) -> None:
    file, index = pq.ParquetFile(uri), Index(uri)
    assert file.schema_arrow.equals(SCHEMA)
    assert index.num_videos == file.metadata.num_rows == VIDEOS
    assert {file.metadata.row_group(number).num_rows for number in range(18)} == {GROUP_VIDEOS}
    table = file.read().to_pydict()
    assert table["video_id"] == list(range(VIDEOS))
    ranges = sorted(zip(table["uri"], table["byte_start"], table["num_bytes"], strict=True))
    for (one, start, length), (other, behind, _) in pairwise(ranges):
        assert one != other or start + length <= behind
    assert asdict(index.row(40))["key_frames"] == [0, 60, 120, 180]


def test_our_rows_are_those_that_the_clips_of_the_step_are_read_from(uri: str) -> None:
    uris, starts, sizes = ours(uri)(3)
    maker = maker_of(uri)
    chosen = [maker.choose(slot).video for slot in range(3 * STEP_VIDEOS, 4 * STEP_VIDEOS)]
    assert uris.tolist() == [video.uri for video in chosen]
    assert starts.tolist() == [video.byte_start for video in chosen]
    assert sizes.tolist() == [video.num_bytes for video in chosen]


def test_both_ways_give_each_video_once_an_epoch(uri: str) -> None:
    whole = VIDEOS // STEP_VIDEOS
    for rows in (ours(uri), conventional(uri)):
        seen = [each for step in range(whole) for each in zip(*map(np.ndarray.tolist, rows(step)[:2]), strict=True)]
        assert len(set(seen)) == len(seen) == whole * STEP_VIDEOS


def test_lines_are_medians_and_are_held_against_their_bounds() -> None:
    mine = {"step_ms": 0.5, "resident_mb": 30.0, "first_s": 0.1, "read_mb": 5.0, "block_us": 2.0, "request_us": 50.0}
    other = {"step_ms": 1.0, "resident_mb": 900.0, "first_s": 2.0, "read_mb": 400.0}
    found = {"ours": [mine, {**mine, "step_ms": 3.0}, {**mine, "step_ms": 0.4}], "conventional": [other] * 3}
    made = {line.name: line for line in lines(found, 10, 500.0)}
    assert made["rows of a step"].ours == 0.5
    assert made["rows of a step"].ratio == 2
    assert made["index read for them"].ours == pytest.approx(1)
    assert made["index read for them"].conventional == pytest.approx(80)
    assert all(line.reached() for line in made.values() if line.targets)
    assert made["what a slot reads"].conventional is None
    alone = lines({"ours": [{**mine, "resident_mb": 120.0}]}, 10, 500.0)
    assert [line.name for line in alone if line.reached() is False] == ["memory of a process"]
    assert all(line.conventional is None for line in alone)


def test_the_stage_runs_in_a_short_form(tmp_path: Path) -> None:
    said: list[str] = []
    made = measure(Asked("synthetic", str(tmp_path), "cpu", short=True, say=said.append))
    assert len(made) == 6
    assert all(line.ours > 0 for line in made)
    assert all(line.conventional for line in made[:4])
    assert "10000 videos" in said[0]
    json.dumps([line.as_dict() for line in made])
