"""A tracker's own process. The tests of the real libraries, without a network, skip where those are not installed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from system.train.tracker_child import serve
from tests.conftest import REPOSITORY

FIRST: dict[str, Any] = {"id": "f00d", "run": "smoke", "config": {"train.steps": 8, "run.seed": 0}}
ROWS = [{"step": step, "time": 1e9 + step, "loss": 1.0 / (1 + step)} for step in range(4)]


def lines_of(first: dict[str, Any], rows: Sequence[Mapping[str, float]], end: str | None = "complete") -> list[str]:
    messages = [first, *({"row": row} for row in rows), *([{"end": end}] if end else [])]
    return [json.dumps(message) for message in messages]


class Service:
    """A service that does not answer at some calls."""

    def __init__(self, fails_at: set[int]) -> None:
        self.fails_at, self.calls = fails_at, 0
        self.steps: list[int] = []
        self.status = ""

    def log(self, row: Mapping[str, float]) -> None:
        self.calls += 1
        if self.calls in self.fails_at:
            raise ConnectionError("no route\nto host")
        self.steps.append(int(row["step"]))

    def end(self, status: str) -> None:
        self.status = status


def test_rows_that_a_service_did_not_take_are_offered_again_in_order() -> None:
    service, said = Service({2, 3, 5}), list[str]()
    serve(lines_of(FIRST, ROWS), lambda first: service, said.append)
    assert service.steps == [0, 1, 2, 3]
    assert service.status == "complete"
    assert said == ["ConnectionError: no route; the run goes on"], "told once"


def test_a_run_that_cannot_be_opened_at_first_is_opened_later() -> None:
    service, tries = Service(set()), list[str]()

    def make(first: dict[str, Any]) -> Service:
        tries.append(first["id"])
        if len(tries) < 3:
            raise TimeoutError
        return service

    said: list[str] = []
    serve(lines_of(FIRST, ROWS), make, said.append)
    assert service.steps == [0, 1, 2, 3]
    assert said == ["TimeoutError: no reason given; the run goes on"]


def test_a_driver_that_died_leaves_a_run_that_failed() -> None:
    service = Service(set())
    serve(lines_of(FIRST, ROWS, end=None), lambda first: service, print)
    assert service.status == "failed"


# A service that never answers a row, and a short time to end in.
HANGS = """
import sys, time
from types import SimpleNamespace
from system.train import tracker_child
tracker_child.LAST_S = 0.2
hangs = SimpleNamespace(log=lambda row: (print("hangs", flush=True), time.sleep(600)), end=print)
tracker_child.serve(tracker_child._messages(), lambda first: hangs, print)
"""


def test_a_child_whose_service_hangs_ends_with_its_driver() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HANGS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("".join(f"{line}\n" for line in lines_of(FIRST, ROWS, end=None)))
        process.stdin.flush()
        assert process.stdout.readline() == "hangs\n"
        process.stdin.close()  # as the system does for a driver that was killed
        try:
            assert process.wait(60) == 1
        finally:
            process.kill()


def run_child(name: str, first: dict[str, Any], rows: Sequence[Mapping[str, float]], **environment: str) -> str:
    """Run the real child over messages; return what it says."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "MLFLOW"))}
    done = subprocess.run(
        [sys.executable, "-m", "system.train.tracker_child", name],
        input="".join(f"{line}\n" for line in lines_of(first, rows)),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**kept, **environment},
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def closed_port() -> int:
    """Return a port of this machine at which nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_mlflow_keeps_one_run_for_all_jobs_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    first = {**FIRST, "folder": str(tmp_path)}
    assert run_child("mlflow", first, ROWS[:2]) == ""
    assert run_child("mlflow", {**first, "config": {"train.steps": 8, "new": 1}}, ROWS[2:]) == ""
    client = mlflow.MlflowClient(f"file:{tmp_path / 'mlruns'}")
    experiment = client.get_experiment_by_name("tubelet")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params == {"train.steps": "8", "run.seed": "0", "new": "1"}
    assert run.info.status == "FINISHED"
    assert [each.step for each in client.get_metric_history(run.info.run_id, "loss")] == [0, 1, 2, 3]


@pytest.mark.slow
def test_mlflow_that_does_not_answer_is_told_once(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{closed_port()}"
    said = run_child("mlflow", {**FIRST, "folder": str(tmp_path)}, ROWS[:1], MLFLOW_TRACKING_URI=uri)
    assert len(said.splitlines()) == 1
    assert said.endswith("the run goes on\n")


@pytest.mark.slow
def test_wandb_without_a_key_keeps_its_files_for_later(tmp_path: Path) -> None:
    said = run_child("wandb", {**FIRST, "folder": str(tmp_path)}, ROWS, HOME=str(tmp_path))
    assert "wandb sync" in said
    (kept,) = (tmp_path / "wandb").glob("offline-run-*-f00d")
    (file,) = kept.glob("run-f00d.wandb")
    assert b"loss" in file.read_bytes()


@pytest.mark.long  # W&B gives up after 30 s
def test_wandb_that_does_not_answer_keeps_its_files_for_later(tmp_path: Path) -> None:
    said = run_child(
        "wandb",
        {**FIRST, "folder": str(tmp_path)},
        ROWS,
        HOME=str(tmp_path),
        WANDB_API_KEY="0" * 40,
        WANDB_BASE_URL=f"http://127.0.0.1:{closed_port()}",
    )
    assert "wandb sync" in said
    assert list((tmp_path / "wandb").glob("offline-run-*-f00d/run-f00d.wandb"))
