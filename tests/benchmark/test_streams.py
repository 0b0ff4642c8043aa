"""The stages of the benchmark that need Ray, in their short form: they run, and their arithmetic holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from system.benchmark.stages import Asked, measure

pytestmark = pytest.mark.ray


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked("synthetic", str(tmp_path), "cpu", short=True, say=lambda _line: None)


@pytest.mark.long  # five streams are started: minutes
def test_the_stream_is_measured_beside_plain_processes(ray_session: None, asked: Asked) -> None:
    lines = {line.name: line for line in measure("pipeline", asked)}
    rate, order = lines["index to device tensor"], lines["exact order"]
    assert rate.limit is not None
    assert rate.limit > 0
    assert rate.share == rate.ours / rate.limit
    assert order.limit is not None
    assert lines["spilled"].ours == 0
    assert lines["spilled"].reached() is True
    block, throughput = lines["a block without work"], lines["a block without work, throughput"]
    assert throughput.ours == pytest.approx(4 * 4 * 64 * 64 * 3 / 1e6 / block.ours)
    assert all(line.ours > 0 for name, line in lines.items() if name != "spilled")


def test_the_loop_says_what_its_time_went_into(ray_session: None, asked: Asked) -> None:
    wait, kept = measure("loop", asked)
    assert 0 <= wait.ours < 100
    assert 0 < kept.ours < 100
    assert "metrics" in kept.says
    assert (Path(asked.scratch) / "loop" / "metrics.jsonl").exists()


@pytest.mark.long
def test_memory_is_compared_between_two_places_of_a_long_plan(ray_session: None, asked: Asked) -> None:
    lines = measure("memory", asked)
    assert [line.name.removeprefix("growth of ") for line in lines] == ["coordinator", "stages", "trainers", "clock"]
    assert all(line.ours > -100 for line in lines)
    assert all("2000000 blocks planned" in line.says for line in lines)
