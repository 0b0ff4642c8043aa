from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import status
from jobs.live import live_line
from jobs.terminal import bare
from system.train.afar import Sight
from system.train.goodput import Book
from system.train.lease import Lease
from tests.conftest import REPOSITORY
from tests.jobs.test_arguments import Output, code_of
from tests.train.moments import TRAINING

# As on a laptop that has neither.
LIGHT = """
import sys
class Laptop:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[2:]:
            raise ModuleNotFoundError(name)
        return None
sys.meta_path.insert(0, Laptop())
from jobs import status
from jobs.cli import run
run(status.main, ["--run", sys.argv[1]])
"""
HEAVY = ("torch", "ray", "numpy", "pyarrow", "av", "pydantic", "cv2", "boto3")


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run that a job has let go of at step 48."""
    folder = str(tmp_path / "mine")
    with Lease.acquire(folder, print):
        book = Book(folder, 1, began=0.0)
        book.note(TRAINING)
        book.lines()
    return folder


def on_laptop(run: str) -> tuple[int, str, str]:
    """Return exit code, words and errors of `jobs.status` where none of the heavy packages is installed."""
    command = [sys.executable, "-c", LIGHT, run, *HEAVY]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_laptop_without_torch_and_ray_sees_how_a_run_stands(run: str) -> None:
    code, told, errors = on_laptop(run)
    assert (code, errors) == (1, "")
    assert "not running: its last job let go of it at step 48 of 120" in told
    assert "decode: 3 queued, 2 of 4 busy" in told
    assert "\x1b" not in told


def test_a_laptop_that_cannot_read_buckets_is_told_what_it_lacks() -> None:
    code, _, errors = on_laptop("s3://bucket/runs/mine")
    assert (code, "boto3, which reads it, is not installed here" in errors, errors.count("\n")) == (2, True, 1)


def test_a_run_is_found_by_its_name_and_runs_while_a_job_has_it(run: str, capsys: Output) -> None:
    with Lease.acquire(run, print):
        assert code_of(status.main, "--run", "mine", "--storage", str(Path(run).parent)) == 0
    assert capsys.readouterr().out.startswith("running: ")


def test_watching_ends_when_the_run_is_no_longer_under_way(run: str, capsys: Output) -> None:
    assert code_of(status.main, "--run", run, "--watch") == 1
    assert capsys.readouterr().out.splitlines()[-1] == live_line(TRAINING)


def test_machines_get_one_object(run: str, capsys: Output) -> None:
    assert code_of(status.main, "--run", run, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["live"]["step"], told["live"]["stages"][0]["queued"]) == ("stopped", 48, 3)


def test_a_run_that_never_started_is_a_users_error(tmp_path: Path, capsys: Output) -> None:
    assert code_of(status.main, "--run", str(tmp_path / "none")) == 2
    assert "never started: no job has had" in capsys.readouterr().err


def test_a_record_that_is_old_says_how_old() -> None:
    fresh = Sight("running", "running: somebody", TRAINING, 3.0)
    assert bare(status.shown(fresh, 80)[0]).endswith("   training")
    assert bare(status.shown(replace(fresh, age_s=65.0), 80)[0]).endswith("training, 1 min 05 s ago")
    assert bare(status.shown(replace(fresh, state="dead"), 80)[0]).endswith("   dead")
    assert "step 40, 1 min 27 s ago" in "\n".join(status.shown(replace(fresh, age_s=65.0), 80))
