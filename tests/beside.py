"""Two processes of pytest beside each other: the tests that start Ray in this one, all others in a second.

    python -m pytest -p tests.beside -m "not gpu and not long"

Ray's tests wait for processes as long as they compute, and the others have one thread: alone, either leaves much of two
cores idle. What the second process reports counts and is shown as if it had been run here: there is one summary, and a
test that fails in either fails the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from ast import literal_eval
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

# Where the second process writes its reports: only its environment has this.
REPORTS = "TUBELET_TEST_REPORTS"
_theirs = pytest.StashKey[list[str]]()


def is_second() -> bool:
    """Say whether this is the second process."""
    return REPORTS in os.environ


@pytest.hookimpl(trylast=True)  # `-m` has left out what it leaves out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep this process's tests."""
    mine, theirs = [], []
    for item in items:
        (mine if (item.get_closest_marker("ray") is None) == is_second() else theirs).append(item)
    config.stash[_theirs] = [item.nodeid for item in theirs]
    items[:] = mine


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Run the second process meanwhile, and take over what it reports.

    Raises:
        pytest.Session.Failed: if it ended before its last test.
    """
    theirs = session.config.stash[_theirs]
    if is_second() or not theirs or session.testsfailed or session.config.option.collectonly:
        return (yield)
    session.testscollected += len(theirs)
    with tempfile.TemporaryDirectory() as folder:
        reports, output = Path(folder) / "reports", Path(folder) / "output"
        with output.open("wb") as out:
            other = subprocess.Popen(
                [sys.executable, "-m", "pytest", *session.config.invocation_params.args],
                env={**os.environ, REPORTS: str(reports)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            done = yield
            other.wait()
        finally:
            other.terminate()
            other.wait()
        ended = _take_over(session.config, reports)
        missing = [test for test in theirs if test not in ended]
        if missing:
            session.config.get_terminal_writer().line(
                f"\n{output.read_text()}\nthe second process ended with {other.returncode} before or in {missing[0]};"
                f" {len(missing)} of its tests are missing"
            )
            raise session.Failed
    return done


def _take_over(config: pytest.Config, reports: Path) -> set[str]:
    """Report what the second process has reported; return the tests that it has come to the end of."""
    ended = set()
    for data in _read(reports):
        report = config.hook.pytest_report_from_serializable(config=config, data=data)
        config.hook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            ended.add(report.nodeid)
    return ended


def _read(reports: Path) -> Iterator[dict[str, Any]]:
    for line in reports.read_text().splitlines() if reports.exists() else ():
        try:
            yield literal_eval(line)
        except SyntaxError:  # it was ended while it wrote
            return


class Reporter:
    """Writes down what a process reports, a line each: as Python, which tells tuples from lists."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config, self._file, self._first = config, path.open("w", buffering=1), os.getppid()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a report; end with the first process, if that was killed."""
        if os.getppid() != self._first:
            pytest.exit("the first process is gone")
        self._file.write(f"{self._config.hook.pytest_report_to_serializable(config=self._config, report=report)!r}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Let the second process write down what it reports."""
    if is_second():
        config.pluginmanager.register(Reporter(config, Path(os.environ[REPORTS])))
