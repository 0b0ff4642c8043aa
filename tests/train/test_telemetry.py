from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import pytest

from system import storage
from system.errors import LeaseError
from system.train import telemetry
from system.train.telemetry import Metrics, read_metrics, resident_mb


def test_a_resumed_run_tells_each_step_once(tmp_path: Path) -> None:
    first = Metrics(str(tmp_path), 0, tensorboard=False)
    for step in range(6):
        first.write({"step": step, "loss": 1.0})
    first.close()
    second = Metrics(str(tmp_path), 4, tensorboard=False)
    second.write({"step": 4, "loss": 2.0})
    second.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(str(tmp_path))] == [
        (0, 1.0),
        (1, 1.0),
        (2, 1.0),
        (3, 1.0),
        (4, 2.0),
    ]


def test_a_job_that_lost_the_run_leaves_the_metrics_of_the_one_that_has_it(tmp_path: Path) -> None:
    lost: list[bool] = []

    def fenced() -> None:
        if lost:
            raise LeaseError("taken over")

    old = Metrics(str(tmp_path), 0, tensorboard=False, fenced=fenced)
    old.write({"step": 0, "loss": 1.0})
    old.flush()
    new = Metrics(str(tmp_path), 0, tensorboard=False)
    new.write({"step": 0, "loss": 2.0})
    new.close()
    lost.append(True)
    old.write({"step": 1, "loss": 3.0})
    old.close()
    assert [row["loss"] for row in read_metrics(str(tmp_path))] == [2.0]


def test_storage_that_hangs_holds_no_close_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "FLUSH_LIMIT_S", 0.05)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    there_again = threading.Event()

    def hangs() -> None:
        there_again.wait()

    metrics = Metrics(str(tmp_path / "run"), 0, tensorboard=True, fenced=hangs)
    assert list((tmp_path / "t").iterdir())
    metrics.write({"step": 0, "loss": 1.0})
    with pytest.raises(TimeoutError):
        metrics.close()
    assert not list((tmp_path / "t").iterdir())
    there_again.set()


def test_tensorboards_files_lie_in_the_run_folder(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = Metrics(str(tmp_path), 0, tensorboard=True)
    for step in range(3):
        metrics.write({"step": step, "loss": 1.0 / (step + 1), "mfu": None})
    metrics.close()
    assert storage.list_objects(str(tmp_path / "tensorboard"))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(each.step, round(each.value, 3)) for each in events.Scalars("loss")] == [(0, 1.0), (1, 0.5), (2, 0.333)]
    assert events.Tags()["scalars"] == ["loss"]


def test_resident_memory_is_that_of_this_process() -> None:
    assert 10 < resident_mb() < 10_000
