from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from system.data.hardware import Hardware
from system.data.placing import Place
from system.errors import StorageFault
from system.train.starts import Machines, Starts, read_starts

H200, A100 = Hardware("NVIDIA H200", "570.86.10", "2.11.0+cu128"), Hardware("NVIDIA A100", "570.86.10", "2.11.0+cu128")


def test_starts_of_several_jobs_are_read_in_their_order_with_their_reasons(tmp_path: Path) -> None:
    run, before = str(tmp_path), time.time()
    first = Starts(run, 1, {"cpu": "a"})
    first.begin(0, 2)
    first.end("WorkerDied: rank 1", {"step": 56})
    first.begin(40, 2)
    second = Starts(run, 4)
    second.begin(40, 1)
    second.end("", {"step": 119})
    one, two = read_starts(run)
    assert [(each.from_step, each.ranks, each.reached, each.why) for each in one.starts] == [
        (0, 2, 57, "WorkerDied: rank 1"),
        (40, 2, None, ""),
    ]
    assert one.starts[1].ended_s is None  # its job was killed
    assert one.machine == {"cpu": "a"}
    assert [(each.from_step, each.reached) for each in two.starts] == [(40, 120)]
    assert before <= one.starts[0].began_s <= two.starts[0].began_s <= time.time()


def test_a_start_without_a_step_reached_none(tmp_path: Path) -> None:
    starts = Starts(str(tmp_path), 1)
    starts.begin(0, 1)
    starts.end("RecipeError: no", {})
    assert read_starts(str(tmp_path))[0].starts[0].reached is None


def test_a_run_without_the_record_has_no_starts(tmp_path: Path) -> None:
    assert read_starts(str(tmp_path)) == []


def test_storage_that_fails_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_uri: str, _data: bytes) -> None:
        raise StorageFault("not now")

    starts = Starts(str(tmp_path), 1)
    with monkeypatch.context() as patched:
        patched.setattr("system.storage.write", refuse)
        starts.begin(0, 1)
    assert read_starts(str(tmp_path)) == []
    starts.end("", {})
    assert len(read_starts(str(tmp_path))[0].starts) == 1


def test_the_newest_starts_of_a_job_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("system.train.starts.MOST", 3)
    starts = Starts(str(tmp_path), 1)
    for step in range(5):
        starts.begin(step, 1)
    assert [each.from_step for each in read_starts(str(tmp_path))[0].starts] == [2, 3, 4]


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    starts = Starts(str(tmp_path), 1, {})
    starts.begin(0, 1)
    starts.landed([place(0, "a")])
    file = next(tmp_path.rglob("*.json"))
    told = json.loads(file.read_text())
    told["starts"][0]["mood"] = told["starts"][0]["ran_on"][0]["hardware"]["mood"] = "good"
    file.write_text(json.dumps(told))
    (start,) = read_starts(str(tmp_path))[0].starts
    assert (start.ranks, start.ran_on) == (1, (Machines(H200, {"a": 1}),))


def test_a_start_of_an_earlier_version_has_no_machines(tmp_path: Path) -> None:
    (tmp_path / "starts").mkdir()
    start = {"began_s": 1.0, "from_step": 0, "ranks": 2, "ended_s": None, "reached": None, "why": ""}
    (tmp_path / "starts" / "00000001.json").write_text(json.dumps({"machine": {}, "starts": [start]}))
    assert read_starts(str(tmp_path))[0].starts[0].ran_on is None


def place(rank: int, machine: str, hardware: Hardware | None = H200) -> Place:
    return Place("trainers", str(rank), machine, machine, ("0",), "cuda", hardware)


def test_a_start_keeps_on_which_machines_its_ranks_are_by_what_they_compute_with(tmp_path: Path) -> None:
    flow = Place("flow", "x", "c", "c", ("0",), "cuda", H200)
    starts = Starts(str(tmp_path), 1)
    starts.begin(0, 4)
    starts.landed([place(0, "b"), place(1, "a"), place(2, "a"), place(3, "b", A100), flow])
    (job,) = read_starts(str(tmp_path))  # it is there while the ranks train
    assert job.starts[0].ran_on == (Machines(A100, {"b": 1}), Machines(H200, {"a": 2, "b": 1}))
    starts.end("", {})
    assert read_starts(str(tmp_path))[0].starts[0].ran_on == job.starts[0].ran_on


def test_ranks_that_never_spoke_are_missing_from_a_start_that_ended(tmp_path: Path) -> None:
    starts = Starts(str(tmp_path), 1)
    starts.begin(0, 2)
    starts.landed([place(1, "a"), place(0, "b", None)])
    starts.end("WorkerDied: rank 0", {})
    assert read_starts(str(tmp_path))[0].starts[0].ran_on == (Machines(H200, {"a": 1}),)


def test_a_start_is_written_no_more_often_than_its_ranks_change_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    starts = Starts(str(tmp_path), 1)
    starts.begin(0, 2)
    monkeypatch.setattr("system.storage.write", lambda uri, _data: written.append(uri))
    for places in ([], [place(0, "a")], [place(0, "a"), place(1, "a")], [place(1, "a"), place(0, "a")]):
        starts.landed(places)
    assert len(written) == 1
