"""Jobs as a user starts them: processes of their own, with an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.conftest import RAY_SETTINGS, REPOSITORY


def environment(**more: str | None) -> dict[str, str]:
    """Return this process's environment without what would change a job, and with more; None: without that."""
    dropped = ("RAY_", "AWS_", "TUBELET_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    told = {**kept, **RAY_SETTINGS, "PYTHONUNBUFFERED": "1", **more}
    return {key: value for key, value in told.items() if value is not None}


AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def title(process: psutil.Process) -> str:
    """Return a process's title; empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def status(process: psutil.Process) -> str:
    """Return what a process does; a zombie where it is gone altogether."""
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)


class Job:
    """A running job and what it has printed."""

    def __init__(self, arguments: list[str], log: Path, env: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as out:
            command = [sys.executable, "-m", *arguments]
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def until(self, done: Callable[[], bool], timeout_s: float = 480) -> None:
        """Wait for something while the job runs."""
        end = time.monotonic() + timeout_s
        while not done():
            assert self.process.poll() is None, f"the job ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < end, f"nothing happened for {timeout_s:.0f} s:\n{self.output}"
            time.sleep(0.2)

    def wait(self, timeout_s: float = 480) -> str:
        """Wait for the job's end and return what it printed."""
        assert self.process.wait(timeout_s) == 0, self.output
        return self.output

    def kill(self) -> None:
        """Kill the driver without a warning, and see that everything of ours goes with it."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        ours = [each for each in children if not set(AGENTS) & set(title(each).split())]
        _, left = psutil.wait_procs(ours, timeout=60)
        # One that has ended stays a zombie while its parent, which may be an agent of Ray's, does not ask for it.
        alive = [each for each in left if status(each) != psutil.STATUS_ZOMBIE]
        for each in children:  # Ray's agents outlive a raylet for a while
            if each.is_running():
                each.kill()
        assert not alive, [title(each) for each in alive]


@contextmanager
def job(*arguments: str, **env: str | None) -> Iterator[Job]:
    """Start `python -m arguments` and leave nothing of it behind."""
    with tempfile.TemporaryDirectory() as folder:
        started = Job(list(arguments), Path(folder) / "log", environment(**env))
        try:
            yield started
        finally:
            if started.process.poll() is None:
                started.kill()
