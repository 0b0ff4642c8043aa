"""Chaos as a user starts it: what it refuses, a short form with a fixed seed, and a long one."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest
import torch

from jobs import chaos
from jobs.cli import run
from system.chaos.copies import copy_here, damage, index_copies, put
from system.errors import RecipeError, SystemFault
from system.train.checkpoint import latest
from tests.conftest import RECIPES, TINY
from tests.jobs.processes import job
from tests.small import tiny_recipe
from tests.train.ranks import everything, newest, train_on

SMOKE = str(RECIPES / "smoke.yaml")
MARK = "TUBELET_TEST_OF_CHAOS"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kill", "worker,disk"], "--kill takes worker, node, actor, driver, separated by commas, or none; got disk"),
        (["--every", "soon"], "--every is a duration above 0"),
        (["--s3-errors", "5"], "--s3-errors is a share from 0% to 100%"),
        (["--corrupt", "x"], "--corrupt is a share from 0% to 100%"),
        (["--nodes", "0"], "--nodes is at least 1, got 0"),
        (["train.stepz=3"], "stepz"),
        (["--seed", "many"], "argument --seed: invalid int value: 'many'; see --help"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(os.environ)
    with pytest.raises(SystemExit) as ended:
        run(chaos.main, ["--recipe", SMOKE, *TINY, *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert dict(os.environ) == before


def test_a_folder_that_the_user_names_stays_and_one_that_holds_something_is_refused(tmp_path: Path) -> None:
    named = tmp_path / "new"
    with pytest.raises(RuntimeError), chaos.work_folder(str(named), keep=False) as work:
        (work.folder / "job.log").write_text("why")
        raise RuntimeError
    assert (named / "job.log").exists()
    with pytest.raises(RecipeError, match="is not an empty folder"), chaos.work_folder(str(named), keep=False):
        pass
    assert (named / "job.log").exists()


def test_a_folder_of_its_own_goes_unless_it_is_kept() -> None:
    with chaos.work_folder(None, keep=False) as first, chaos.work_folder(None, keep=True) as second:
        assert first.folder.is_dir()
    assert not first.folder.exists()
    assert second.folder.is_dir()
    second.folder.rmdir()


def test_a_folder_is_kept_for_whoever_looks_into_a_fault_and_goes_with_a_mistake() -> None:
    with pytest.raises(SystemFault), chaos.work_folder(None, keep=False) as first:
        raise SystemFault("the job ended again and again")
    with pytest.raises(RecipeError), chaos.work_folder(None, keep=False) as second:
        raise RecipeError("no such thing")
    assert first.folder.is_dir()
    first.folder.rmdir()
    assert not second.folder.exists()


def marked(value: str) -> list[int]:
    """Processes whose environment has the test's mark."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if f"{MARK}={value}".encode() in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
            except OSError:
                continue
    return found


def under_fire(tmp_path: Path, *arguments: str, timeout_s: float) -> str:
    """Run chaos to its end, see that nothing is left of it, and return what it printed."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    given = ["jobs.chaos", "--recipe", SMOKE, *TINY, "run.name=chaos", "data.max_bad_ratio=0.5", *arguments]
    began = time.monotonic()
    with job(*given, TMPDIR=str(scratch), **{MARK: str(tmp_path)}) as started:
        told = started.wait(timeout_s)
    sys.stdout.write(f"{told}\nchaos took {time.monotonic() - began:.0f} s\n")
    assert "Traceback" not in told
    assert not marked(str(tmp_path))
    assert not list(scratch.iterdir())
    return told


SIZE = ["train.steps=48", "checkpoint.every_steps=4", "resources.num_workers=2", "engine.name=torch"]


def undisturbed(folder: Path, seed: int) -> dict[tuple[str, str], torch.Tensor]:
    """Train on the same videos, damaged in the same way, in plain processes; return all weights and moments."""
    recipe = tiny_recipe(folder, "run.name=calm", "data.max_bad_ratio=0.5", *SIZE)
    (folder / "copies").mkdir()
    copies = copy_here(recipe, folder / "copies", print)
    put(copies, str(folder / "damaged"))
    index = index_copies(copies, str(folder / "damaged"))
    recipe = tiny_recipe(folder, "run.name=calm", "data.max_bad_ratio=0.5", *SIZE, f"data.uri={index}")
    damage(recipe, index, 0.02, seed, print)
    train_on(2, recipe)
    return newest(recipe)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_run_under_fire_ends_as_one_that_nobody_disturbed(tmp_path: Path) -> None:
    """A worker, a node, a decode actor and the driver die once each; one request in twenty breaks; a video is bad."""
    fire = ["--kill", "worker,node,actor,driver", "--every", "0.2s", "--most-kills", "4", "--seed", "1"]
    wrong = ["--s3-errors", "5%", "--corrupt", "2%", "--keep", "--out", str(tmp_path / "out")]
    told = under_fire(tmp_path, *fire, *wrong, *SIZE, timeout_s=720)
    assert {"worker", "node", "actor", "driver"} == set(re.findall(r"kill \d: (\w+), process", told))
    assert re.search(r"storage: \d+ requests, [1-9]\d* of them broken", told)
    audit, goodput = told.splitlines()[-2:]
    # 16 videos, of which one is damaged: 48 steps of 16 slots are 48 epochs.
    assert audit.startswith("audit: clean: 48 steps, 768 slots once each, 48 by substitutes, 0 skipped")
    assert re.match(r"goodput of the run's 2 jobs, \d+ s: compute \d", goodput)
    calm = undisturbed(tmp_path, 1)
    (folder,) = (tmp_path / "out").rglob("checkpoints")
    found = latest(str(folder.parent))
    assert found is not None
    fired = everything(found)
    assert fired.keys() == calm.keys()
    assert all(torch.equal(fired[key], calm[key]) for key in calm)


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(2 * 3600)
def test_twenty_kills_of_every_kind_lose_nothing(tmp_path: Path) -> None:
    fire = ["--kill", "worker,node,actor,driver", "--every", "20s", "--s3-errors", "5%", "--corrupt", "2%"]
    size = ["train.steps=3000", "resources.num_workers=2", "checkpoint.every_steps=20", "data.views=2"]
    told = under_fire(tmp_path, *fire, *size, timeout_s=2 * 3600)
    assert len(re.findall(r"kill \d+: ", told)) >= 20
    growth = {role: int(text) for role, text in re.findall(r"^  (ray|trainers|actors) .* ([+-]\d+)%$", told, re.M)}
    assert growth.keys() == {"ray", "trainers", "actors"}
    assert max(growth.values()) < 20, growth
    assert told.splitlines()[-2].startswith("audit: clean: 3000 steps")
