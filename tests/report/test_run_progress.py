from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from system.recipe import Recipe, load_recipe
from system.report.run_files import read_run
from system.train.claims import HELD, Claim, Process
from system.train.holder import this_process
from system.train.lease import Times
from tests.conftest import RECIPES
from tests.report.page import checks_of, made
from tests.report.runs import lines, write, write_run
from tests.train.moments import TRAINING

QUICK = Times(renew_s=0.02, expires_s=30.0, poll_s=0.01, settle_s=0.02)


@pytest.fixture
def smoke(tmp_path: Path) -> Recipe:
    return load_recipe(RECIPES / "smoke.yaml", [f"run.storage={tmp_path}"])


def test_a_job_that_holds_the_run_now_is_told(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(5)))
    starts = json.loads((folder / "starts" / "00000001.json").read_text())
    starts["starts"][-1] |= {"ended_s": None, "reached": None}
    write(folder / "starts" / "00000001.json", starts)
    assert checks_of(folder)["Progress"].status == "bad"
    holder = {"user": "u", "host": "h", "boot": "", "namespace": "", "pid": 1, "started": ""}
    claim = {"lease": "x", "holder": holder, "beat": 1, "state": "held", "time_s": time.time(), "generation": 1}
    write(folder / "lease" / "00000001.json", claim)
    assert checks_of(folder)["Progress"].value == "running: 5 of 120 steps"
    assert "it goes on" in made(folder)


def test_a_run_whose_last_checkpoint_failed_is_not_complete(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(120)))
    starts = json.loads((folder / "starts" / "00000001.json").read_text())
    starts["starts"][-1]["why"] = "StorageFault: the disk is full"
    write(folder / "starts" / "00000001.json", starts)
    found = checks_of(folder)["Progress"]
    assert (found.status, found.value) == ("bad", "ended at 120 of 120 steps: StorageFault: the disk is full")
    write(folder / "summary.json", {"status": "stopped", "step": 120, "steps": 120})
    assert checks_of(folder)["Progress"].status == "bad"


def test_where_no_ledger_can_be_read_the_summary_says_whether_a_run_is_complete(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(120)))
    write(folder / "summary.json", {"status": "complete", "step": 120, "steps": 120})
    assert checks_of(folder)["Progress"].value == "complete: 120 of 120 steps"
    write(folder / "summary.json", {"status": "complete", "step": 100, "steps": 100})
    assert checks_of(folder)["Progress"].value == "stopped, resumable: 120 of 120 steps"


def test_whether_a_job_holds_the_run_is_not_a_matter_of_its_clock(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(5)))

    def runs(holder: Process, time_s: float) -> bool:
        write(folder / "lease" / "00000001.json", json.loads(Claim(1, "x", holder, 1, HELD, time_s).as_bytes()))
        return read_run(str(folder), times=QUICK).running

    here, elsewhere = this_process(), Process("ann", "trainer-7", "boot", "pid:[1]", 12, "34")
    assert runs(here, time.time() - 3600)
    assert not runs(replace(here, started="before"), time.time())
    assert not runs(elsewhere, time.time() - 3600)
    assert runs(elsewhere, time.time())


def test_a_job_that_is_alive_and_takes_no_step_is_worth_a_look(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(48)))
    claim = Claim(1, "x", this_process(), 1, HELD, time.time())
    write(folder / "lease" / "00000001.json", json.loads(claim.as_bytes()))
    record = json.loads((folder / "goodput" / "00000001.json").read_text())
    write(folder / "goodput" / "00000001.json", record | {"live": TRAINING.as_dict()})
    assert checks_of(folder)["Progress"].value == "running: 48 of 120 steps"
    silent = replace(TRAINING, silent_s=900.0)
    write(folder / "goodput" / "00000001.json", record | {"live": silent.as_dict()})
    found = checks_of(folder)["Progress"]
    assert (found.status, found.value) == ("look", "running, but no step for 900 s: 48 of 120 steps")
