"""What a laptop sees of a job: its words as they come, each once, over connections that break.

The cluster is behind `Cluster`, which client.py makes of Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from system.errors import SystemFault

RUNNING = ("PENDING", "RUNNING")
# Between two tries to reach the cluster again, and after how long without an answer it is given up, seconds.
RETRY_S = 2.0
PATIENCE_S = 600.0


class Cluster(Protocol):
    """Where jobs run. Every method raises `UnreachableError` while there is no connection."""

    def status(self, job: str) -> Seen:
        """Say how a job stands."""
        ...

    def words(self, job: str) -> str:
        """Return all that a job has printed so far."""
        ...

    def more_words(self, job: str) -> Iterator[str]:
        """Yield what a job prints, from its beginning, until it ends or the connection does."""
        ...


class UnreachableError(SystemFault):
    """The cluster does not answer now."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How a job stands.

    Attributes:
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: Ray's, of its end.
        exit_code: the command's, where Ray knows it.
    """

    status: str
    message: str = ""
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status not in RUNNING


class Follower:
    """Gives a job's lines to a function, each once.

    Args:
        cluster: where it runs.
        job: its name.
        line: takes whole lines.
        note: takes what is said about the connection.
        clock: seconds; another one in tests.
        sleep: waits; another one in tests.
    """

    def __init__(
        self,
        cluster: Cluster,
        job: str,
        line: Callable[[str], None],
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cluster, self._job, self._line, self._note = cluster, job, line, note
        self._clock, self._sleep = clock, sleep
        self._told = 0  # characters of whole lines that were given on
        self._lost: float | None = None
        self._told_of_asking = False

    def follow(self) -> Seen:
        """Return how the job ended, once it has and all of its lines were given on.

        Raises:
            UnreachableError: if the cluster has not answered for ten minutes.
        """
        while True:
            try:
                seen = self._cluster.status(self._job)
                self._back()
                if seen.ended:
                    self._take(self._cluster.words(self._job), last=True)
                    return seen
                pause = self._stream()
            except UnreachableError as error:
                self._wait(error)
                continue
            self._sleep(pause)

    def _stream(self) -> float:
        """Give on what a job prints while there is a connection; return how long to wait before the next one."""
        text = ""
        try:
            for part in self._cluster.more_words(self._job):
                text += part
                self._take(text)
        except UnreachableError as error:
            self._take(self._cluster.words(self._job))  # which goes through proxies that let no stream through
            if not self._told_of_asking:
                self._note(
                    f"the stream of the job's lines broke off ({error}); while there is none, they are asked for"
                )
                self._told_of_asking = True
            return RETRY_S
        return RETRY_S / 4  # the stream has ended and the job has not, or only just

    def _take(self, text: str, *, last: bool = False) -> None:
        """Give on the whole lines of a job's text that were not given on yet."""
        whole = len(text) if last else text.rfind("\n") + 1
        if whole > self._told:
            for line in text[self._told : whole].splitlines():
                self._line(line)
            self._told = whole

    def _back(self) -> None:
        if self._lost is not None:
            self._note("the cluster answers again")
            self._lost = None

    def _wait(self, error: UnreachableError) -> None:
        now = self._clock()
        if self._lost is None:
            self._lost = now
            self._note(f"the cluster does not answer ({error}); the job goes on without this, which tries again")
        if now - self._lost > PATIENCE_S:
            raise error
        self._sleep(RETRY_S)
