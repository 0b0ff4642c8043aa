"""How a run stands, seen from any machine that reads its folder: is somebody at work on it, and how does it go.

Needs Python and the storage's client alone. No job is asked; what its driver left in the folder is up to ten seconds
old.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from system import storage
from system.train.claims import HELD, Claim
from system.train.goodput import newest_record
from system.train.holder import lives, this_process
from system.train.lease import TIMES, Times, newest_claim
from system.train.live import Live

# A run's state: a job has it; all its steps are done; its last job let go of it before that; its last job is gone
# without a word; no job has had it.
State = Literal["running", "complete", "stopped", "dead", "never"]


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of a run.

    Attributes:
        state: of it.
        says: the same as a sentence.
        live: how it went when its newest job wrote that down; None: no job has.
        age_s: since then, by the two machines' clocks.
    """

    state: State
    says: str
    live: Live | None
    age_s: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        live = None if self.live is None else self.live.as_dict()
        return {"state": self.state, "says": self.says, "age_s": self.age_s, "live": live}


def look(run_uri: str, now_s: Callable[[], float] = time.time, times: Times = TIMES) -> Sight:
    """Look at a run; where the clocks leave it open whether its job lives, for as long as a renewal takes.

    Raises:
        DataError: if storage refuses.
        StorageFault: if it does not answer.
    """
    claim = newest_claim(run_uri)
    alive = claim is not None and claim.state == HELD and renews(run_uri, claim, now_s(), times)
    # What an earlier job left is not how one that is at work goes.
    record, now = newest_record(run_uri, with_live=not alive), now_s()
    live = record.live if record is not None else None
    state, says = judged(run_uri, newest_claim(run_uri), alive=alive, live=live, summary=_summary(run_uri), now_s=now)
    return Sight(state, says, live, 0.0 if live is None else max(0.0, now - live.at_s))


def renews(run_uri: str, claim: Claim, now_s: float, times: Times) -> bool:
    """Say whether a held claim's holder lives: it is seen here, it has just renewed its claim, or it does so now.

    Args:
        run_uri: of the run.
        claim: the newest.
        now_s: seconds since 1970, by a clock that is not the holder's.
        times: of a lease; one renewal and settling is the longest that this takes.
    """
    if this_process().is_beside(claim.holder):
        return lives(claim.holder)
    if abs(now_s - claim.time_s) < times.expires_s:
        return True
    # Two clocks may be an hour apart: only a claim that nobody renews is given up.
    end = time.monotonic() + times.renew_s + times.settle_s
    while time.monotonic() < end:
        time.sleep(min(times.poll_s, times.renew_s))
        if newest_claim(run_uri) != claim:
            return True
    return False


def _summary(run_uri: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(storage.read(storage.join(run_uri, "summary.json")))
    except storage.MissingError:
        return {}
    return found


def judged(
    run_uri: str, claim: Claim | None, *, alive: bool, live: Live | None, summary: Mapping[str, Any], now_s: float
) -> tuple[State, str]:
    """Return how a run stands, and a sentence that says so and what to do.

    Args:
        run_uri: of the run.
        claim: the newest; None: there is none.
        alive: its holder lives.
        live: how the run went last.
        summary: of the last job that came to its end; empty: there was none.
        now_s: seconds since 1970.
    """
    if claim is None and live is None and not summary:
        return "never", (
            f"never started: no job has had {run_uri}; is it the run's folder? `python -m jobs.pretrain --recipe ..."
            " run.storage=... run.name=...` starts a run"
        )
    if claim is not None and claim.state == HELD and alive:
        return "running", f"running: {claim.holder}"
    steps = live.steps if live is not None else int(summary.get("steps", 0))
    if summary.get("status") == "complete" and summary["step"] >= steps:
        return "complete", f"complete: {summary['step']} steps are done, and no job is at work on it"
    step = "" if live is None else f" at step {live.step} of {live.steps}"
    again = "; the same command goes on from the newest checkpoint"
    if claim is None or claim.state != HELD:
        return "stopped", f"not running: its last job let go of it{step}{again}"
    return "dead", (
        f"not running: {claim.holder} holds it and is dead, or cut off from the storage: it renewed its lease"
        f" {_ago(now_s - claim.time_s)}{step and f', and was{step} then'}{again}"
    )


def _ago(seconds: float) -> str:
    """Return a time that may be by a clock that is ahead."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s ago"
    return f"{seconds / 60:.0f} minutes ago" if seconds < 7200 else f"{seconds / 3600:.0f} hours ago"
