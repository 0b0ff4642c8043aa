"""Where the seconds of a job went: each of them is attributed once, in whole milliseconds, so the parts add up exactly.

compute, data_wait, checkpoint   steps that were done for the first time, as rank 0 measured them
replayed                         steps that an earlier attempt or job had done, and whose state was lost
restart                          an attempt's start to its first step, and its last step to the notice of its failure
idle                             the rest: set-up before the first attempt, waits between attempts, closing
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from system import storage
from system.errors import TubeletError
from system.train.live import Live, live_from

STEPS = ("compute", "data_wait", "checkpoint", "replayed")
PARTS = (*STEPS, "restart", "idle")
IDLE = ("set-up", "waiting", "closing")
FOLDER = "goodput"
# How often the record in the run's folder is written while a job runs, seconds.
WRITE_EVERY_S = 10.0


class Seconds:
    """Where a rank's time has gone since its first step began: parts that add up to the whole.

    The wait for the first block is the stream's start, and a part of its own.

    Args:
        reached: steps below this were done before, by a start whose work was lost.

    Attributes:
        parts: seconds by name; `STEPS` and `start`.
    """

    def __init__(self, reached: int) -> None:
        self._reached, self._mark = reached, time.monotonic()
        self.parts = {"start": 0.0, "compute": 0.0, "data_wait": 0.0, "checkpoint": 0.0, "replayed": 0.0}

    def step(self, step: int, wait_s: float, checkpoint_s: float) -> None:
        """Attribute the time since the last step's end.

        Args:
            step: that was done.
            wait_s: of it, for blocks.
            checkpoint_s: of it, for a checkpoint.
        """
        now = time.monotonic()
        whole, self._mark = now - self._mark, now
        if not any(self.parts.values()):
            self.parts["start"], whole, wait_s = wait_s, whole - wait_s, 0.0
        if step < self._reached:
            self.parts["replayed"] += whole
            return
        self.parts["data_wait"] += wait_s
        self.parts["checkpoint"] += checkpoint_s
        self.parts["compute"] += whole - wait_s - checkpoint_s


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, in seconds since 1970 by the driver's clock.

    Attributes:
        began: the workers were asked for.
        ended: it ended, or failed and that was noticed; None: it goes on.
        told_at: the trainers' last word; None: they have not taken a step.
        seconds: what rank 0 had measured by then, from its first step's beginning.
        failed: it ended with an error.
    """

    began: float
    ended: float | None = None
    told_at: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """Where a job's time went, milliseconds.

    Attributes:
        parts: of `PARTS`; they add up to the whole.
        idle: of `IDLE`; they add up to the part of that name.
    """

    parts: Mapping[str, int]
    idle: Mapping[str, int]

    @property
    def whole(self) -> int:
        """All of it, milliseconds."""
        return sum(self.parts.values())


def _ms(seconds: float) -> int:
    return int(1000 * max(0.0, seconds))  # cut, not rounded: the parts never exceed the whole


def _attempt_parts(attempt: Attempt, ended: float) -> tuple[dict[str, int], int]:
    """Return what an attempt's steps and starts took, and how long it closed after its last step, milliseconds."""
    told = min(attempt.told_at or ended, ended)
    steps = {name: _ms(attempt.seconds.get(name, 0.0)) for name in STEPS}
    # Two clocks measure: the steps are cut to what the driver's has for them. What is left came before them.
    room = _ms(told - attempt.began)
    for name in STEPS:
        steps[name] = min(steps[name], room)
        room -= steps[name]
    after = _ms(ended - attempt.began) - sum(steps.values()) - room
    closes = attempt.told_at is not None and attempt.ended is not None and not attempt.failed
    return {**steps, "restart": room + (0 if closes else after)}, after if closes else 0


def account(began: float, now: float, attempts: Sequence[Attempt]) -> Account:
    """Attribute the time of a job.

    Args:
        began: when the job began, seconds since 1970.
        now: until when.
        attempts: of the job, in order; the last may go on.
    """
    whole, parts = _ms(now - began), dict.fromkeys(PARTS, 0)
    closing = 0
    for attempt in attempts:
        own, closed = _attempt_parts(attempt, now if attempt.ended is None else attempt.ended)
        closing += closed
        for name, amount in own.items():
            parts[name] += amount
    parts["idle"] = whole - sum(parts.values())
    setup = min(_ms((attempts[0].began if attempts else now) - began), parts["idle"])
    last = attempts[-1].ended if attempts else now
    closing = min(closing + (_ms(now - last) if last is not None else 0), parts["idle"] - setup)
    return Account(parts, {"set-up": setup, "waiting": parts["idle"] - setup - closing, "closing": closing})


def summed(accounts: Sequence[Account]) -> Account:
    """Add up the accounts of several jobs."""
    return Account(
        {name: sum(each.parts[name] for each in accounts) for name in PARTS},
        {name: sum(each.idle[name] for each in accounts) for name in IDLE},
    )


def cost_of(account: Account, price_per_hour: float) -> float:
    """Return what the time of a job or a run has cost, in the currency of the price."""
    return price_per_hour * account.whole / 3_600_000


def told_goodput(name: str, account: Account) -> str:
    """Return the line that says where the time went."""
    whole = max(1, account.whole)
    parts = [f"{part.replace('_', ' ')} {amount / whole:.1%}" for part, amount in account.parts.items()]
    idle = ", ".join(f"{part} {amount / whole:.1%}" for part, amount in account.idle.items() if amount)
    return f"goodput of {name}, {account.whole / 1000:.0f} s: {', '.join(parts)}" + (f" ({idle})" if idle else "")


@dataclass(frozen=True, slots=True)
class Record:
    """A job's account as it lies in the run's folder.

    Attributes:
        account: where its time went.
        reached: all steps below this had been done when it was written, in this job or before.
        live: how the run went then; None: the job did not train yet.
    """

    account: Account
    reached: int
    live: Live | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        parts, idle = dict(self.account.parts), dict(self.account.idle)
        told = {"parts_ms": parts, "idle_ms": idle, "whole_ms": self.account.whole, "reached": self.reached}
        return told if self.live is None else {**told, "live": self.live.as_dict()}


def record_from(values: Mapping[str, Any]) -> Record:
    """Read what `as_dict` wrote."""
    live = live_from(values["live"]) if "live" in values else None
    return Record(Account(values["parts_ms"], values["idle_ms"]), int(values["reached"]), live)


def _numbered(run_uri: str) -> dict[int, str]:
    """Return the URIs of a run's records by the generation of their job's first claim, oldest first."""
    uris = [found.uri for found in storage.list_objects(storage.join(run_uri, FOLDER), missing_ok=True)]
    names = {uri: uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in uris}
    return dict(sorted((int(name), uri) for uri, name in names.items() if name.isdigit()))


def read_records(run_uri: str) -> dict[int, Record]:
    """Return the records of a run's jobs by the generation of their first claim."""
    return {name: record_from(json.loads(storage.read(uri))) for name, uri in _numbered(run_uri).items()}


def newest_record(run_uri: str, *, with_live: bool = False) -> Record | None:
    """Return the record of the newest job of a run, or of the newest that says how it went; None: there is none."""
    for uri in reversed(_numbered(run_uri).values()):
        record = record_from(json.loads(storage.read(uri)))
        if record.live is not None or not with_live:
            return record
    return None


class Book:
    """Keeps a job's account while it runs, and writes it into the run's folder.

    Args:
        run_uri: the run's folder.
        generation: of the job's first claim; its name.
        began: when the job began, seconds since 1970.
    """

    def __init__(self, run_uri: str, generation: int, began: float) -> None:
        self._uri, self._began = storage.join(run_uri, FOLDER, f"{generation:08d}.json"), began
        self._attempts: list[Attempt] = []
        self._live: Live | None = None
        self._turn = threading.Lock()
        self._written = float("-inf")  # by a clock that nobody sets
        self._behind: threading.Thread | None = None
        self._before = {name: each for name, each in read_records(run_uri).items() if name != generation}
        self.reached = max((each.reached for each in self._before.values()), default=0)

    def begin(self) -> None:
        """Say that an attempt begins."""
        self._attempts.append(Attempt(time.time()))

    def told(self, values: Mapping[str, Any]) -> None:
        """Take the trainers' newest values."""
        if self._attempts and values:
            seconds = dict(values.get("seconds", {}))
            self._attempts[-1] = replace(self._attempts[-1], told_at=values["told_at"], seconds=seconds)
            self.reached = max(self.reached, int(values["step"]) + 1)
        self._keep_up()

    def note(self, live: Live) -> None:
        """Take how the run goes; it is written with the account."""
        self._live = live
        self._keep_up()

    def _keep_up(self) -> None:
        """Write the record if it is time."""
        with self._turn:
            now = time.monotonic()
            if now - self._written > WRITE_EVERY_S and not (self._behind and self._behind.is_alive()):
                self._written = now
                # Not here: storage may take its time, and the driver has others to answer.
                self._behind = threading.Thread(target=self.write, name="goodput", daemon=True)
                self._behind.start()

    def end(self, *, failed: bool) -> None:
        """Say that the attempt has ended."""
        self._attempts[-1] = replace(self._attempts[-1], ended=time.time(), failed=failed)

    @property
    def account(self) -> Account:
        """Where the job's time went until now."""
        return account(self._began, time.time(), self._attempts)

    @property
    def attempts(self) -> int:
        """Attempts of the job until now."""
        return len(self._attempts)

    @property
    def whole(self) -> Account:
        """Where the time of all of the run's jobs went until now."""
        return summed([*(each.account for each in self._before.values()), self.account])

    def write(self) -> Account:
        """Write the record, and return the account in it."""
        self._written = time.monotonic()
        now = self.account
        with suppress(TubeletError):  # it is written again; an account is no reason to end a run
            storage.write(self._uri, json.dumps(Record(now, self.reached, self._live).as_dict(), indent=1).encode())
        return now

    def withdraw(self) -> None:
        """Take the record back: the job has found nothing to do."""
        with suppress(TubeletError):
            storage.delete([self._uri])

    def lines(self) -> list[str]:
        """Write the record and return what a user is told: this job, and the whole run where there were others."""
        if self._behind is not None:
            self._behind.join(WRITE_EVERY_S)  # so that an older record does not replace this one
        now = self.write()
        told = [told_goodput("this job", now)]
        if self._before:
            told.append(told_goodput(f"the run's {1 + len(self._before)} jobs", self.whole))
        return told
