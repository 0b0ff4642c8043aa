"""The commands of docs/start.md from a checkpoint to a result, run in order as they stand, but with fewer steps."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY
from tests.docs.commands import Command, commands_of

# Laid over the recipes: as few steps as show that each part fits to the next.
FEW = ["train.steps=4", "train.warmup_steps=1", "checkpoint.every_steps=4", "telemetry.picture_clips=0"]
# And fewer videos; those that Ray is not needed for do without.
FEWER = {"--videos": "22"}
RAYS_OWN = ("evaluate", "probe", "embed")


def walk() -> list[Command]:
    page = commands_of(REPOSITORY / "docs" / "start.md")
    jobs = [command for command in page if command.job is not None]
    first = next(at for at, command in enumerate(jobs) if command.job == "make_videos")
    return jobs[first:]


def shortened(command: Command) -> list[str]:
    words = list(command.arguments)
    if command.job in ("pretrain", "finetune"):
        return [*words, *FEW, "--address", "local"]
    if command.job in RAYS_OWN:
        words.append("--local")
    if command.job == "make_videos" and "--masks" not in words:
        words[words.index("--videos") + 1] = FEWER["--videos"]
    return words


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_way_from_videos_to_results_is_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    (tmp_path / "jobs").symlink_to(REPOSITORY / "jobs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # for processes that start in another folder than a user's
    commands = walk()
    assert [command.job for command in commands][2:] == [
        *("pretrain", "finetune", "evaluate", "probe", "embed", "make_videos", "segment", "export", "report")
    ]
    for command in commands:
        try:
            assert importlib.import_module(f"jobs.{command.job}").main(shortened(command)) == 0, command
        finally:
            ray.shutdown()  # which the end of a job's process does
    results = tmp_path / "results"
    evaluated = json.loads((results / "evaluated" / "results.json").read_text())
    assert (evaluated["videos"], evaluated["whole"], evaluated["failed"]) == (22, 22, 0)
    counts = json.loads((results / "evaluated" / "confusion.json").read_text())["counts"]
    assert sum(map(sum, counts)) == 22
    assert json.loads((results / "probed" / "probe.json").read_text())["sets"]["test"]["videos"] == 22
    rows = pq.read_table(str(results / "features" / "parts"))
    assert rows.num_rows == 22
    assert np.isfinite(np.stack(rows["embedding"].to_numpy())).all()
    followed = json.loads((results / "followed" / "results.json").read_text())
    assert 0 < followed["means"]["J&F-Mean"] < 1
    assert len(json.loads((results / "exported" / "config.json").read_text())["id2label"]) == 11
    assert "first-tuned" in (tmp_path / "runs" / "first-tuned" / "report.html").read_text()
    assert "classify on 22 videos" in capsys.readouterr().out
