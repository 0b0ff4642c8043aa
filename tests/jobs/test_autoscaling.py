"""A run on a cluster that begins with its head alone: machines come, go, and are taken away by Ray's autoscaler."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from jobs import autoscaling
from jobs.cli import run
from system.report.machine_counts import Timeline, timeline_from
from tests.conftest import RECIPES, TINY
from tests.jobs.processes import job
from tests.jobs.test_chaos import MARK, marked

SIZE = [
    *(
        each
        for each in TINY
        if not each.startswith(
            ("data.uri", "data.num_frames", "train.global_batch", "train.micro_batch", "train.steps")
        )
    ),
    "method.name=videomae",
    "checkpoint.every_steps=10",
]


def test_a_mistake_is_told_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(autoscaling.main, ["--recipe", str(RECIPES / "smoke.yaml"), "--idle", "soon"])
    assert ended.value.code == 2
    assert "--idle is a duration above 0" in capsys.readouterr().err


def watched(tmp_path: Path, *options: str) -> tuple[str, Timeline]:
    """Run it to its end, see that nothing is left of it and what must hold of any form; return what it told."""
    scratch, out = tmp_path / "tmp", tmp_path / "out"
    scratch.mkdir()
    given = ["jobs.autoscaling", "--recipe", str(RECIPES / "smoke.yaml"), *SIZE, "run.name=grown", "--out", str(out)]
    began = time.monotonic()
    with job(*given, *options, TMPDIR=str(scratch), **{MARK: str(tmp_path)}) as started:
        told = started.wait(1500)
    sys.stdout.write(f"{told}\nit took {time.monotonic() - began:.0f} s\n")
    assert not marked(str(tmp_path))
    assert "finding:" not in told
    assert re.match(r"audit: clean: \d+ steps, \d+ slots once each, 0 by substitutes, 0 skipped", told.splitlines()[-1])
    timeline = timeline_from((out / "machines.json").read_text())
    assert [count for _, count in timeline.changes("train")] == [0, 1, 0]
    assert set(timeline.counts("GPUs")) == {0}
    asked = {frozenset(each.items()) for look in timeline.looks for each, _ in look.asked}
    assert frozenset({("CPU", 1.0), ("decode", 1.0)}) in asked
    assert not any(name == "GPU" for each in asked for name, _ in each)
    assert (out / "machines.png").read_bytes().startswith(b"\x89PNG")
    return told, timeline


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_machines_come_while_the_trainer_starves_and_go_at_the_end_and_one_that_is_lost_costs_no_sample(
    tmp_path: Path,
) -> None:
    told, timeline = watched(tmp_path, "--short", "--more-steps", "4")
    assert "taken away without a word" in told
    decode = [count for _, count in timeline.changes("decode")]
    assert decode[0] == decode[-1] == 0
    assert max(decode) == 2
    assert decode.count(2) > 1  # once more after one was lost


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(1600)
def test_machines_go_while_the_trainer_is_slow(tmp_path: Path) -> None:
    _, timeline = watched(tmp_path)
    slowed, fewer = (mark.at_s for mark in timeline.marks if "slow" in mark.what or "little to do" in mark.what)
    before = [look.there["decode"] for look in timeline.looks if look.at_s <= slowed]
    assert before[-1] == 2
    assert next(look.there["decode"] for look in timeline.looks if look.at_s >= fewer) == 1
