"""What to do when a run fails: a pure function of what failed and how often.

The error that reaches the driver is wrapped several times on its way (a worker's, in Ray's, in Ray Train's); what
counts is the innermost one that we raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from system.errors import SystemFault, UserError


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and the sentence that says why."""

    action: Literal["stop", "retry"]
    reason: str


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything that it wraps, outermost first."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        failures = getattr(current, "worker_failures", None)  # Ray Train: rank -> error
        inner = list(failures.values()) if isinstance(failures, dict) else []
        names = ("cause", "base_exc", "_base_exc", "controller_failure", "__cause__", "__context__")
        waiting += [*inner, *(getattr(current, name, None) for name in names)]


def root(error: BaseException) -> BaseException:
    """Return the error that counts: a user's before a fault of ours before the innermost of the others."""
    chain = list(causes(error))
    for kind in (UserError, SystemFault):
        ours = [each for each in chain if isinstance(each, kind)]
        if ours:
            return ours[-1]
    return chain[-1]


def pause_after(failures: int) -> float:
    """Return how long to wait before the next attempt, seconds: 1, 2, 4, ... at most 60.

    An outage of some minutes must not spend the whole budget.
    """
    return min(60.0, 2.0 ** (failures - 1))


def _sentence(error: BaseException) -> str:
    """Return the line that says what happened."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # Ray keeps only the text of an error in an actor's constructor: a traceback, whose last line is the error.
    return lines[-1] if "creation task" in lines[0] else lines[0]


def decide(error: BaseException, failures: int, max_failures: int) -> Decision:
    """Decide what follows a failure.

    Args:
        error: what ended the attempt.
        failures: failures in a row, without a new checkpoint between them, this one included.
        max_failures: how many the recipe allows.

    Returns:
        `stop` at once for a user's error or when the budget is spent, else `retry`.
    """
    reason = root(error)
    sentence = _sentence(reason)
    if isinstance(reason, UserError):
        return Decision("stop", sentence)
    if failures > max_failures:
        return Decision("stop", f"failure {failures}, and resources.max_failures={max_failures}: {sentence}")
    return Decision("retry", f"failure {failures} of at most {max_failures}: {type(reason).__name__}: {sentence}")
