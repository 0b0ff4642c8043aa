"""What a job holds while it works on a run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from system.errors import LeaseError
from system.train.goodput import Book
from system.train.starts import Starts


class Hold(Protocol):
    """A job's hold on a run; lease.Lease is one."""

    @property
    def lost(self) -> str | None:
        """Why the run is no longer this job's; None: it is."""
        ...

    def next_generation(self) -> int:
        """Renew the hold under a higher number, so that an earlier attempt's workers are refused; return the number."""
        ...


@dataclass
class Shift:
    """What a job holds while it works on a run.

    Attributes:
        book: of its time.
        hold: on the run.
        stop: set when the job is to end.
        grace_s: how long it may take then, seconds.
        make_way: called before machines are looked for: gives back what else the job holds of them.
        starts: what is kept of its attempts.
    """

    book: Book
    hold: Hold | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    grace_s: float = 60.0
    make_way: Callable[[], None] = lambda: None
    starts: Starts = field(default_factory=Starts)

    def check(self) -> None:
        """Pass if the run is still this job's.

        Raises:
            LeaseError: if another job has taken it.
        """
        if self.hold is not None and self.hold.lost is not None:
            raise LeaseError(self.hold.lost)
