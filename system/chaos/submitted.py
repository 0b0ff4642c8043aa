"""The job under fire, `python -m jobs.pretrain`, as a process that is started again whenever it ends too early."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from system.chaos.processes import kill_with_descendants
from system.errors import SystemFault, UserError

# Starts in a row that leave no new checkpoint before it is given up.
MOST_STARTS = 5
# Seconds between two lines about progress.
PROGRESS_S = 0.5

_STEP = re.compile(rb"^step (\d+)/(\d+) ", re.MULTILINE)
_FAULT = re.compile(r"^\w+(Error|Fault): ")


class EndedError(UserError):
    """The job ended with an error that its user has to mend."""


def command_for(recipe: str, overrides: Sequence[str], address: str) -> list[str]:
    """Return what starts the job.

    Args:
        recipe: its file.
        overrides: laid over it.
        address: of the cluster.
    """
    return [sys.executable, "-m", "jobs.pretrain", "--recipe", recipe, *overrides, "--address", address]


def newest_step(text: bytes) -> int | None:
    """Return the number of steps that the last whole progress line tells of, None if there is none."""
    whole = text[: text.rfind(b"\n") + 1]
    found = _STEP.findall(whole)
    return int(found[-1][0]) if found else None


def last_words(text: str) -> str:
    """Return the line of a job's output that says why it ended."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("step ")]
    errors = [line for line in lines if _FAULT.match(line)]
    return (errors or lines or ["it said nothing"])[-1]


class Submitted:
    """The job.

    Args:
        command: starts it.
        log: takes what it prints, of all its starts.
        env: its environment.
    """

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self._command = list(command)
        self.log = log
        self._env = {**env, "PYTHONUNBUFFERED": "1", "TUBELET_PROGRESS_S": str(PROGRESS_S)}
        self._process: subprocess.Popen[bytes] | None = None
        self._read = self._began = 0
        self.starts = 0
        self._in_vain = 0
        self._reached = -1

    @property
    def pid(self) -> int | None:
        """The process's id, while it lives."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def last_pid(self) -> int | None:
        """The id of the process of the last start, whether it lives or not."""
        return self._process.pid if self._process is not None else None

    def start(self, reached: int) -> None:
        """Start it, or start it again.

        Args:
            reached: the newest checkpoint.

        Raises:
            SystemFault: if it has ended too often without a new one.
        """
        self._in_vain = self._in_vain + 1 if reached <= self._reached else 0
        self._reached = reached
        if self._in_vain >= MOST_STARTS:
            raise SystemFault(
                f"the job ended {MOST_STARTS} times in a row without a new checkpoint after step {reached}:"
                f" {self.why()}; its output: {self.log}"
            )
        self._began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as out:
            # Of a session of its own: a Ctrl-C at the terminal is for the one who started all this.
            self._process = subprocess.Popen(
                self._command,
                env=dict(self._env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.starts += 1

    def ended(self) -> int | None:
        """Return the exit code if it has ended.

        Raises:
            EndedError: if the user has to mend something.
        """
        assert self._process is not None
        code = self._process.poll()
        if code == 2:
            raise EndedError(f"the run ended: {self.why()}")
        return code

    def why(self) -> str:
        """Return the line that says why it ended last."""
        return last_words(self.log.read_bytes()[self._began :].decode(errors="replace"))

    def step(self) -> int | None:
        """Return how many steps are done by what it has printed since the last call; None: it printed no progress."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        self._read += text.rfind(b"\n") + 1
        return newest_step(text)

    def kill(self) -> None:
        """Kill it without a warning, and what it started itself."""
        process = self._process
        if process is not None and process.poll() is None:  # else its id may be another's by now
            kill_with_descendants(process.pid)
            process.wait()

    def stop(self, within_s: float) -> None:
        """Ask it to end, and kill it if it does not."""
        if self.pid is None or self._process is None:
            return
        self._process.terminate()
        end = time.monotonic() + within_s
        while self._process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        self.kill()
