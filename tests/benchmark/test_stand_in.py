"""Stand-ins for the stages of a stream give what the stages give, but for what is in the frames."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from system.benchmark.large_index import write_repeated
from system.benchmark.loop import timed
from system.benchmark.plain import plain
from system.benchmark.stand_in import Pace, stand_ins
from system.benchmark.timing import Stopwatch, interleaved
from system.data.assemble import StreamSpec, decode_stage, read_stage
from system.data.columns import Batch
from system.data.index import Index
from system.train.batch import split_tokens
from tests.small import stream_spec, tiny_recipe


@pytest.fixture
def spec(generated: Path) -> StreamSpec:
    return stream_spec(tiny_recipe(generated, "data.views=2"), ranks=3)


def numbered(number: int) -> Batch:
    return {"block": np.array([number])}


def test_stand_ins_give_the_columns_of_the_stages_and_the_same_slots(spec: StreamSpec) -> None:
    makers = stand_ins()
    stage = decode_stage(spec)
    for number in (0, 2):  # the last block of a step is padded
        rows = read_stage(spec)(numbered(number))
        real = stage(rows)
        found = makers.decode(spec)(makers.read(spec)(numbered(number)))
        assert found.keys() == real.keys()
        for name, values in real.items():
            assert found[name].dtype == values.dtype, name
            assert found[name].shape == values.shape, name
        for name in ("step", "slot", "view"):
            assert found[name].tolist() == real[name].tolist()
        split_tokens(found["visible"])
    stage.close()


def test_the_pace_of_a_block_follows_from_its_slots_and_from_its_slow_clips() -> None:
    assert Pace(0.01).block_s(0, 0, 8) == pytest.approx(0.08)
    pace = Pace(0.01, 0.01, 20)
    seconds = np.array([pace.block_s(step, 0, 100) for step in range(1000)])
    assert (seconds >= 1 - 1e-9).all()
    assert pace.block_s(7, 0, 100) == seconds[7]
    slow = (seconds - 1) / 0.19  # clips of a block that are slow
    assert slow.mean() == pytest.approx(1, abs=0.15)
    assert slow == pytest.approx(slow.round())


def test_plain_processes_make_the_clips_of_the_blocks_that_are_timed(spec: StreamSpec) -> None:
    watch = Stopwatch()
    with plain(spec, stand_ins(), 2) as processes:
        assert processes.make(1, 3, watch) == 3 * spec.layout.clips_per_block
        assert processes.make(0, 2, watch) == 2 * spec.layout.clips_per_block
    assert watch() > 0


def test_only_what_is_inside_of_a_stopwatch_counts() -> None:
    seconds = count(step=2.0)
    watch = Stopwatch(lambda: float(next(seconds)))

    def work() -> int:
        next(seconds)  # is not counted
        with watch:
            return 6

    assert interleaved({"a": work}, 2, clock=watch)["a"].rates == (3.0, 3.0)


class Writer:
    """Something with a method."""

    def write(self, value: int) -> int:
        return value + 1


def test_a_method_is_timed_while_the_context_is_open_and_does_what_it_did() -> None:
    seconds = iter(range(100))
    watch = Stopwatch(lambda: float(next(seconds)))
    before = Writer.write
    with timed(Writer, "write", watch):
        assert [Writer().write(1), Writer().write(2)] == [2, 3]
    assert watch() == 2
    assert Writer.write is before


def test_a_long_index_repeats_the_videos_of_a_small_one(spec: StreamSpec, tmp_path: Path) -> None:
    small = Index(spec.index_uri)
    write_repeated(tmp_path / "long.parquet", 5000, spec.index_uri)
    found = Index(str(tmp_path / "long.parquet"))
    assert found.num_videos == 5000
    for video_id in (0, 17, 2047, 2048, 4999):
        row = found.row(video_id)
        assert row.video_id == video_id
        again = small.row(video_id % found.group_videos % small.num_videos)
        assert (row.uri, row.num_bytes) == (again.uri, again.num_bytes)


@pytest.fixture(autouse=True)
def nothing_is_left_timed() -> Iterator[None]:
    yield
    assert not hasattr(Writer.write, "__wrapped__")
