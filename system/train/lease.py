"""One job at a time trains a run: numbered claims under `lease/`, the newest of which holds it.

    lease/00000007.json

Claim n + 1 is an object that is created only if it is not there, so of two jobs that want a run one gets it. Its holder
renews it by writing it anew; nobody else writes it. A holder that does not renew for 30 s loses the run to whoever
wants it, and finds out at its next renewal, or at the latest by its `Fence`, which is asked before each manifest.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

from system import storage
from system.errors import LeaseError, StorageFault, TubeletError
from system.train.claims import HELD, RELEASED, Claim, Seen, Verdict, claim_from, decide
from system.train.holder import lives, this_process

FOLDER = "lease"
_NAME = re.compile(r"/(\d{8})\.json$")
# Looks for the newest claim while others make new ones and delete old ones.
LOOKS = 10


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a lease's life.

    Attributes:
        renew_s: between two renewals: three of them fit into `expires_s`.
        expires_s: without a renewal, after which others take the run.
        longest_s: that a job waits for a run in all, storage's own waiting left out.
        poll_s: between two looks at another's claim.
        settle_s: between writing and reading back, where the store lets two write the same claim.
        leave_s: that a release waits for storage.
    """

    renew_s: float = 10.0
    expires_s: float = 30.0
    longest_s: float = 40.0
    poll_s: float = 1.0
    settle_s: float = 3.0
    leave_s: float = 10.0


TIMES = Times()


@dataclass(frozen=True, slots=True)
class Fence:
    """What a process that writes for a run asks before it writes a manifest; it may travel.

    Attributes:
        run_uri: of the run.
        generation: of the lease under which the process was started.
    """

    run_uri: str
    generation: int

    def check(self) -> None:
        """Pass if no newer claim than ours exists.

        Raises:
            LeaseError: if one does; it names the holder.
            StorageFault: if storage does not answer.
        """
        newest = _numbers(self.run_uri)[-1:]
        if newest and newest[0] > self.generation:
            raise LeaseError(_superseded(self.run_uri, self.generation, newest_claim(self.run_uri)))


class Lease:
    """A run that is ours for now; made by `acquire`."""

    def __init__(self, run_uri: str, claim: Claim, *, enforced: bool, times: Times) -> None:
        self._run_uri = run_uri
        self._claim = claim
        self._enforced = enforced
        self._times = times
        self._lost: str | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(
        cls, run_uri: str, say: Callable[[str], None], takeover: bool = False, *, times: Times = TIMES
    ) -> Lease:
        """Take a run, after watching for at most 40 s whether another job holds it.

        Args:
            run_uri: of the run.
            say: gets a line if another job held it, and one if the store cannot keep two jobs apart by itself.
            takeover: take it whoever holds it.
            times: its intervals.

        Raises:
            LeaseError: if another job holds the run; it names the job.
            DataError: if storage refuses.
            StorageFault: if it does not answer.
        """
        enforced = storage.enforces_create(storage.join(run_uri, FOLDER))
        if not enforced:
            say(f"warning: {unenforced(run_uri, times)}")
        me, lease, began = this_process(), uuid.uuid4().hex, time.monotonic()
        first = now = _look(run_uri)
        watching = False
        while now.asked_s - began <= times.longest_s:
            verdict = decide(first, now, me, lives, takeover=takeover, expires_s=times.expires_s)
            if verdict.move == "refuse":
                raise LeaseError(f"{run_uri}: {verdict.why}")
            if verdict.move == "take":
                claim = Claim(now.claim.generation + 1 if now.claim else 1, lease, me, 0, HELD, time.time())
                if _made(run_uri, claim, enforced=enforced, times=times):
                    return cls._taken(run_uri, claim, verdict, say, enforced=enforced, times=times)
            else:
                if not watching:
                    say(verdict.why)
                watching = True
                time.sleep(times.poll_s)
            now = _look(run_uri)
        raise LeaseError(f"{run_uri}: several jobs want this run, and others were faster; stop all but one")

    @classmethod
    def _taken(
        cls, run_uri: str, claim: Claim, verdict: Verdict, say: Callable[[str], None], *, enforced: bool, times: Times
    ) -> Lease:
        if verdict.why:
            say(verdict.why)
        lease = cls(run_uri, claim, enforced=enforced, times=times)
        _tidy(run_uri, claim.generation)
        return lease

    @property
    def generation(self) -> int:
        """Number of the claim that holds the run."""
        return self._claim.generation

    @property
    def lost(self) -> str | None:
        """Return why the run is no longer ours, as far as is known; None while it is."""
        return self._lost

    def next_generation(self) -> int:
        """Claim the run anew, so that processes of an earlier attempt may no longer write; return the number.

        Raises:
            LeaseError: if another job has taken it.
            StorageFault: if storage does not answer; it may be called again.
        """
        with self._lock:
            # Our own newer one is there if the call before this one broke off.
            newest = self._newest()
            claim = replace(self._claim, generation=newest.generation + 1, beat=0, time_s=time.time())
            if not _made(self._run_uri, claim, enforced=self._enforced, times=self._times):
                self._newest()
                raise LeaseError(f"{self._run_uri}: claim {claim.generation} was made by another and is gone again")
            self._claim = claim
        _tidy(self._run_uri, claim.generation)
        return claim.generation

    def release(self) -> None:
        """Let another job take the run at once; storage that does not answer now keeps nobody here."""
        self._stopping.set()
        self._thread.join(self._times.leave_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _newest(self) -> Claim:
        """Return the newest claim, which is ours.

        Raises:
            LeaseError: if it is not; the lease is lost then.
        """
        if self._lost is None:
            newest = newest_claim(self._run_uri)
            if newest is None or newest.lease == self._claim.lease:
                return newest or self._claim
            self._lost = _superseded(self._run_uri, self.generation, newest)
        raise LeaseError(self._lost)

    def _renew(self) -> None:
        """Renew until it is released or lost. Storage may be away for a while: the fence decides what that cost."""
        while not self._stopping.wait(self._times.renew_s) and self._lost is None:
            with suppress(Exception):  # a thread that ended of an error would lose the run for nothing
                self._write(HELD)
        with suppress(TubeletError):
            self._write(RELEASED)

    def _write(self, state: str) -> None:
        with self._lock:
            self._newest()
            # Counted before it is written: a renewal that broke off may have been seen.
            self._claim = replace(self._claim, beat=self._claim.beat + 1, state=state, time_s=time.time())
            storage.write(_uri(self._run_uri, self.generation), self._claim.as_bytes())


def unenforced(run_uri: str, times: Times = TIMES) -> str:
    """Return what people are told about a store without conditional writes."""
    return (
        f"the store of {run_uri} does not keep two jobs from writing the same object (If-None-Match): claims"
        f" are read back after {times.settle_s:g} s; do not start two jobs of one run at the same moment"
    )


def newest_claim(run_uri: str) -> Claim | None:
    """Return the claim that holds a run; None if nobody ever did.

    Raises:
        StorageFault: if storage does not answer.
    """
    for _ in range(LOOKS):
        numbers = _numbers(run_uri)
        if not numbers:
            return None
        with suppress(storage.MissingError):  # deleted since it was listed, so there is a newer one
            return claim_from(numbers[-1], storage.read(_uri(run_uri, numbers[-1])))
    raise StorageFault(f"{run_uri}/{FOLDER}: lists claims that cannot be read, {LOOKS} times in a row")


def _look(run_uri: str) -> Seen:
    asked = time.monotonic()
    return Seen(newest_claim(run_uri), asked, time.monotonic())


def _numbers(run_uri: str) -> list[int]:
    """Return the generations of all claims, sorted."""
    items = storage.list_objects(storage.join(run_uri, FOLDER), missing_ok=True)
    return sorted(int(found[1]) for item in items if (found := _NAME.search(item.uri)))


def _uri(run_uri: str, generation: int) -> str:
    return storage.join(run_uri, FOLDER, f"{generation:08d}.json")


def _made(run_uri: str, claim: Claim, *, enforced: bool, times: Times) -> bool:
    """Make a claim if nobody has; say whether it is ours."""
    uri, data = _uri(run_uri, claim.generation), claim.as_bytes()
    if enforced:
        return storage.create(uri, data)
    if storage.exists(uri):
        return False
    storage.write(uri, data)
    time.sleep(times.settle_s)
    newest = newest_claim(run_uri)
    return newest is not None and newest.as_bytes() == data


def _tidy(run_uri: str, generation: int) -> None:
    """Delete claims older than the one before this generation; it does not matter if some stay."""
    with suppress(TubeletError):
        storage.delete(_uri(run_uri, number) for number in _numbers(run_uri) if number < generation - 1)


def _superseded(run_uri: str, generation: int, newest: Claim | None) -> str:
    by = f"claim {newest.generation} by {newest.holder}" if newest else "a newer claim"
    return f"{run_uri}: claim {generation}, under which this process works, is no longer the newest: {by} is"
