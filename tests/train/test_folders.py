"""How a run is named by a user."""

from __future__ import annotations

from pathlib import Path

from system.train.folders import run_folder


def test_a_run_is_named_by_its_folder_or_below_its_storage(tmp_path: Path) -> None:
    assert run_folder("mine", "s3://bucket/runs") == "s3://bucket/runs/mine"
    assert run_folder("s3://bucket/runs/mine/", "./runs") == "s3://bucket/runs/mine"
    assert run_folder(str(tmp_path / "x"), "./runs") == str(tmp_path / "x")
