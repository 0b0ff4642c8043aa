"""How often and how long storage is asked again: which faults pass, the pauses between tries, and when it is enough.

Every request has the same budget, of tries and of seconds, whichever is spent first. The pauses double, and half of
each is drawn, so that many readers that failed together do not come back together.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from system.errors import DataError, StorageFault

T = TypeVar("T")

# Ten tries are spent after about 30 s of refusals, or 120 s of silence: a store that restarts is back by then, and
# after a longer outage a run starts again from its checkpoint with pauses of its own.
TRIES = 10
SECONDS = 120.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0

TRIES_VARIABLE = "TUBELET_STORAGE_TRIES"
SECONDS_VARIABLE = "TUBELET_STORAGE_SECONDS"

# 408 and 429 ask for it in so many words; 501 and 505 stay what they are.
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}
# What stores answer under other numbers, or with a 200 whose body says otherwise.
_PASSING_CODES = {
    "BadDigest",
    "BandwidthLimitExceeded",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "TransactionInProgressException",
}


@dataclass(frozen=True, slots=True)
class Budget:
    """What one request may take: `tries` in all, the last of which begins before `seconds` are over."""

    tries: int
    seconds: float


def number_from(variable: str, default: float, *, least: float) -> float:
    """Return a number that an environment variable may replace.

    Raises:
        DataError: if it is none, or too small.
    """
    said = os.environ.get(variable, "")
    if not said:
        return default
    try:
        number = float(said)
    except ValueError:
        number = float("nan")
    if not least <= number < float("inf"):
        raise DataError(f"{variable} is a number of at least {least:g}, got {said}")
    return number


def budget() -> Budget:
    """Return the budget of a request, as this process's environment has it."""
    return Budget(
        int(number_from(TRIES_VARIABLE, TRIES, least=1)),
        number_from(SECONDS_VARIABLE, SECONDS, least=0),
    )


def is_passing(status: int, code: str) -> bool:
    """Say whether a store's answer may be another one when it is asked again.

    Args:
        status: of HTTP.
        code: the word for it in the body, or the status once more where there is no body.
    """
    return status in _PASSING_STATUS or code in _PASSING_CODES


def pause_s(failed: int, spent_s: float, draw: float, allowed: Budget) -> float | None:
    """Return the seconds to wait before the next try; None if the budget is spent.

    Args:
        failed: tries that have failed, at least one.
        spent_s: seconds since the first began.
        draw: uniform in [0, 1).
        allowed: the budget.
    """
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failed - 1)) * (1 + draw) / 2
    if failed >= allowed.tries or spent_s + pause > allowed.seconds:
        return None
    return pause


def retried(work: Callable[[int], T], uri: str, passing: Callable[[Exception], str]) -> T:
    """Do a piece of work until it succeeds or its budget is spent.

    Args:
        work: gets how many tries have failed. It must be one that may be done twice.
        uri: of what is read or written, for the message.
        passing: returns a sentence for an error that may pass, "" for one that will not.

    Raises:
        StorageFault: if the budget is spent: the URI, the last error, the tries and seconds.
        Exception: what `work` raised and `passing` has no sentence for.
    """
    allowed, began, failed = budget(), time.monotonic(), 0
    while True:
        try:
            return work(failed)
        except Exception as error:
            sentence = passing(error)
            if not sentence:
                raise
            failed += 1
            spent = time.monotonic() - began
            pause = pause_s(failed, spent, random.random(), allowed)
            if pause is None:
                raise StorageFault(f"{uri}: {sentence} (given up after {failed} tries in {spent:.1f} s)") from error
        time.sleep(pause)
