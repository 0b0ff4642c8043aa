"""Tests that run in two processes end as they would in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.beside import REPORTS
from tests.conftest import REPOSITORY

FIRST = """
import os, pytest

@pytest.mark.ray
def test_here():
    assert "{reports}" not in os.environ
"""
SECOND = """
import os, pytest

@pytest.mark.parametrize("number", range(3))
def test_there(number):
    assert "{reports}" in os.environ
    if number == 2:
        {last}

@pytest.mark.skip(reason="so that there is one")
def test_skipped():
    pass
"""


def run(folder: Path, last: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_first.py").write_text(FIRST.format(reports=REPORTS))
    (folder / "test_second.py").write_text(SECOND.format(reports=REPORTS, last=last))
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q -p no:cacheprovider\nmarkers = ray: x")
    env = {key: value for key, value in os.environ.items() if key != REPORTS}
    command = [sys.executable, "-m", "pytest", "-p", "tests.beside"]
    return subprocess.run(
        command, cwd=folder, env={**env, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("last", "code", "summary"),
    [("pass", 0, "4 passed, 1 skipped in "), ("assert number == 7", 1, "1 failed, 3 passed, 1 skipped in ")],
)
def test_there_is_one_summary_and_a_test_that_fails_in_the_second_process_fails_the_run(
    tmp_path: Path, last: str, code: int, summary: str
) -> None:
    done = run(tmp_path, last)
    assert done.returncode == code, done.stdout
    assert done.stdout.splitlines()[-1].startswith(summary)
    assert ("assert 2 == 7" in done.stdout) == bool(code)


def test_a_second_process_that_dies_fails_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, "os._exit(0)")
    assert done.returncode == 1
    assert "ended with 0 before or in test_second.py::test_there[2]; 2 of its tests are missing" in done.stdout
