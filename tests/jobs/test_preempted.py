"""Runs that are told to stop, and runs whose machines are taken back."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray import _raylet
from ray.cluster_utils import Cluster

from system.train.audit import audit
from system.train.checkpoint import complete_steps, open_checkpoint
from system.train.goodput import read_records
from system.train.launch import START_NOTHING_AHEAD
from system.train.past import open_past
from tests.conftest import RECIPES, TINY
from tests.jobs.pictures import rows_of_images
from tests.jobs.processes import Job, job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ENDLESS = [*TINY, "train.steps=100000", "checkpoint.every_steps=50000"]
# Of ray's protobuf, which has no stubs: an autoscaler's reason is `idle`, a cloud's is this one.
PREEMPTED = 2
raylet: Any = _raylet


def arguments(where: Path, name: str, *more: str) -> list[str]:
    recipe = str(RECIPES / "smoke.yaml")
    return ["--recipe", recipe, *ENDLESS, f"run.name={name}", f"run.storage={where}", *more]


def stopped_at(run: str) -> int:
    """The step that a run's summary says it was stopped at, for which there is a checkpoint."""
    summary = json.loads(Path(run, "summary.json").read_text())
    assert summary["status"] == "stopped"
    assert summary["told_to_stop"]
    spent = summary["goodput_ms"]
    parts = ("compute", "data_wait", "checkpoint", "replayed", "restart", "idle")
    assert sum(spent[part] for part in parts) == spent["whole"]
    step: int = summary["step"]
    assert complete_steps(run)[-1] == step
    return step


def stop(running: Job) -> None:
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(120) == 128 + signal.SIGTERM, running.output


def test_a_job_that_is_told_to_stop_saves_says_so_and_goes_on_later(tmp_path: Path) -> None:
    """Of a method whose masks come from the streams' vectors."""
    run = str(tmp_path / "told")
    one = arguments(tmp_path, "told", "resources.num_workers=1", "method.name=mgm")
    given = ["jobs.pretrain", *one, "--address", "local"]
    with job(*given) as first:
        first.until(lambda: "clips/s" in first.output)
        assert complete_steps(run) == []
        stop(first)
        assert "Traceback" not in first.output
    reached = stopped_at(run)
    with job(*given, f"run.stop_at_step={reached + 2}") as second:
        told = second.wait()
    assert f"resuming at step {reached}: told" in told
    assert complete_steps(run)[-1] == reached + 2
    assert [record.reached for record in read_records(run).values()] == [reached, reached + 2]
    assert audit(open_past(run)).clean
    summary = json.loads(Path(run, "summary.json").read_text())
    assert summary["slots_fallback"] == 0
    assert rows_of_images(summary["outputs"]["picture"]) == 4


def test_a_job_that_is_told_to_stop_before_it_is_connected_ends_at_once(tmp_path: Path) -> None:
    with job("jobs.pretrain", *arguments(tmp_path, "early"), "--address", "local") as early:
        early.until(lambda: "generating" in early.output)
        early.process.send_signal(signal.SIGTERM)
        assert early.process.wait(60) == 128 + signal.SIGTERM, early.output
    assert complete_steps(str(tmp_path / "early")) == []


@contextmanager
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster whose head decodes and whose other machines train one worker each."""
    for key, value in START_NOTHING_AHEAD.items():
        monkeypatch.setenv(key, value)
    temp = tempfile.mkdtemp(prefix="r", dir="/tmp")
    head = {"num_cpus": 2, "object_store_memory": 100_000_000, "temp_dir": temp, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
        shutil.rmtree(temp, ignore_errors=True)


def add(cluster: Cluster) -> Any:
    return cluster.add_node(num_cpus=2, resources={"train": 1}, object_store_memory=100_000_000)


def take_back(machine: Any) -> None:
    """End a machine as a cloud does: everything at once."""
    own = [psutil.Process(each.process.pid) for kind in machine.all_processes.values() for each in kind]
    for process in [*own, *(child for each in own for child in each.children(recursive=True))]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def test_a_machine_that_is_taken_back_costs_some_steps_and_one_that_comes_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(tmp_path / "spot")
    elastic = ["resources.num_workers=[1,2]", "resources.worker_resources.train=1", "resources.decode_actors=1"]
    with machines(monkeypatch) as cluster:
        _, second = add(cluster), add(cluster)
        given = ["jobs.pretrain", *arguments(tmp_path, "spot", *elastic), "--address", str(cluster.address)]
        with job(*given) as running:
            running.until(lambda: "2 of 1 to 2 workers have room" in running.output and "clips/s" in running.output)
            deadline_ms = int(1000 * (time.time() + 12))
            gcs = raylet.GcsClient(address=cluster.address)
            assert gcs.drain_node(second.node_id, PREEMPTED, "spot", deadline_ms)[0]
            running.until(lambda: len(complete_steps(run)) == 2)
            assert "will be taken back in" in running.output
            at_notice, at_deadline = complete_steps(run)
            take_back(second)
            running.until(lambda: f"starting again from step {at_deadline}" in running.output)
            assert "a machine was taken back" in running.output
            running.until(lambda: "1 of 1 to 2 workers have room" in running.output)
            add(cluster)
            running.until(lambda: "room for 2 workers" in running.output)
            running.until(lambda: running.output.count("2 of 1 to 2 workers have room") == 2)
            running.until(lambda: "clips/s" in running.output.rpartition("have room")[2])
            stop(running)
    reached = stopped_at(run)
    assert at_notice < at_deadline < reached
    assert open_checkpoint(run, reached).state["ranks"] == 2
    found = audit(open_past(run))
    assert found.clean
    assert [each.ranks for each in found.stretches] == [2, 1, 2]
