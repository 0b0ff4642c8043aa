"""The probe: arithmetic as its command prints it, and one stream in its smallest form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import scale_probe
from system.errors import RecipeError


def test_how_gpus_are_fed_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale_probe.main(["--gpus", "8,64", "views=4", "--json", str(tmp_path / "fed.json")]) == 0
    out = capsys.readouterr().out
    assert "views=4" in out
    told = json.loads((tmp_path / "fed.json").read_text())
    assert told["assumed"]["views"] == 4
    assert [each["gpus"] for each in told["feeds"]] == [8, 64]
    assert [each["requests_s"] for each in told["feeds"]] == [400.0, 3200.0]
    (line,) = [line for line in out.splitlines() if line.startswith("reads of storage/s")]
    assert line.split()[-2:] == ["400", "3,200"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gpus", "8,none"], "numbers of GPUs"),
        (["--gpus", "0"], "numbers of GPUs"),
        (["--gpus", "8", "view=4"], "there is no such assumption; there are clips_per_gpu_s"),
        (["--gpus", "8", "views=some"], "views is a number"),
        (["--gpus", "8", "busy=0"], "busy has to be above 0"),
        (["--gpus", "8", "busy=inf"], "busy has to be above 0, and finite"),
        (["--gpus", "8", "busy=nan"], "busy has to be above 0, and finite"),
        (["views=4"], "assumptions are for --gpus"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_with_the_way_out(arguments: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        scale_probe.main(arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ranks", "0"], "--ranks: a number from 1 is wanted, got 0"),
        (["--actors", "8", "-1"], "--actors: a number from 1 is wanted, got -1"),
        (["--task-ms", "-5"], "--task-ms: needs a number of 0 or more, got -5"),
        (["--task-ms", "nan"], "--task-ms: needs a number of 0 or more, got nan"),
        (["--block-mb", "0"], "--block-mb: needs a number above 0, got 0"),
        (["--seconds", "inf"], "--seconds: needs a number of 0 or more, got inf"),
    ],
)
def test_loads_that_make_no_sense_are_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        scale_probe.main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.ray
def test_one_executor_is_measured(ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--short", "--ranks", "2", "--actors", "2", "--task-ms", "10", "--block-mb", "0.2", "--seconds", "1"]
    assert scale_probe.main([*given, "--json", str(tmp_path / "probe.json")]) == 0
    (found,) = json.loads((tmp_path / "probe.json").read_text())["found"]
    assert found["load"] == {"ranks": 2, "actors": 2, "task_s": 0.01, "block_mb": 0.2}
    assert 0 < found["blocks_s"] <= 200  # two actors, 10 ms each
    assert found["blocks"] >= 2
    assert found["most_s"] == 1e3 / found["cpu_ms"]["coordinator"]
    assert "blocks/s were seen" in capsys.readouterr().out
