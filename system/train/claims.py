"""Who holds a run: what a claim says, and what a second job does about it. No storage, no clock: lease.py has both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

HELD, RELEASED = "held", "released"


@dataclass(frozen=True, slots=True)
class Process:
    """One process of one machine.

    Attributes:
        user: that it runs as.
        host: name of the machine.
        boot: drawn by the kernel at each start of the machine; "" if unknown.
        namespace: in which `pid` means this process; "" if unknown.
        pid: its number.
        started: when it started, in the kernel's ticks: numbers are given again.
        job: that Ray knows it by; "" if it was not submitted.
    """

    user: str
    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    job: str = ""

    def __str__(self) -> str:
        """Return its name for people."""
        return f"{self.user}@{self.host}:{self.pid}" + (f" (job {self.job})" if self.job else "")

    def is_beside(self, other: Process) -> bool:
        """Say whether it is surely on the same machine, where each sees whether the other lives."""
        place = (self.host, self.boot, self.namespace)
        return all(place) and place == (other.host, other.boot, other.namespace)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one numbered object under `lease/` says.

    Attributes:
        generation: its number.
        lease: a name drawn for each lease, which may make several claims.
        holder: the process that holds it.
        beat: counts the renewals.
        state: `held` or `released`.
        time_s: of the last renewal by the holder's clock, since 1970; for people only.
    """

    generation: int
    lease: str
    holder: Process
    beat: int
    state: str
    time_s: float

    def as_bytes(self) -> bytes:
        """Return the object's bytes; no two claims have the same."""
        return json.dumps(asdict(self), indent=1).encode()


def claim_from(generation: int, data: bytes) -> Claim:
    """Return the claim that an object's bytes are; bytes that are none are a claim of somebody unknown."""
    try:
        read = json.loads(data)
        said = {**read, "generation": generation, "holder": Process(**read["holder"])}
        return Claim(**said)
    except (ValueError, TypeError, KeyError):
        unknown = Process("somebody", "unknown", "", "", 0, "")
        return Claim(generation, hashlib.sha256(data).hexdigest(), unknown, 0, HELD, 0.0)


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest claim at one look, None if there was none.

    Attributes:
        claim: that was seen.
        asked_s: when storage was asked, on the watcher's own monotonic clock.
        answered_s: when it had answered.
    """

    claim: Claim | None
    asked_s: float
    answered_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a job that wants a run does next, and a sentence for people; "" if there is nothing to say."""

    move: Literal["take", "refuse", "watch"]
    why: str = ""


def decide(
    first: Seen, now: Seen, me: Process, lives: Callable[[Process], bool], *, takeover: bool, expires_s: float
) -> Verdict:
    """Return what a job does about the newest claim.

    No two clocks are compared: a claim is old when it has not changed for as long as this job has watched it.

    Args:
        first: what it saw when it came.
        now: what it sees.
        me: the job's process.
        lives: says of a process of this machine whether it lives.
        takeover: take the run whoever holds it.
        expires_s: seconds without a renewal after which a claim is void.
    """
    claim = now.claim
    if claim is None or claim.state == RELEASED:
        return Verdict("take")
    if takeover:
        return Verdict("take", f"the run is taken over from {claim.holder}, as --takeover says")
    if me.is_beside(claim.holder) and not lives(claim.holder):
        return Verdict("take", f"the run was held by {claim.holder}, which no longer lives: taken over")
    if claim != first.claim:
        return Verdict(
            "refuse",
            f"another job trains this run: {claim.holder}, which has just renewed its lease; wait for it, stop it, or"
            " take the run from it with --takeover",
        )
    waited = now.asked_s - first.answered_s
    if waited >= expires_s:
        return Verdict("take", f"the run was held by {claim.holder}, not renewed for {waited:.0f} s: taken over")
    return Verdict("watch", f"the run is held by {claim.holder}: watching for {expires_s:g} s whether it is renewed")
