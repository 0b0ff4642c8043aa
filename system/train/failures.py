"""What to do when a run fails: a pure function of what failed, when, and what failed before.

The error that reaches the driver is wrapped several times on its way (a worker's, in Ray's, in Ray Train's); what
counts is the innermost one that we raised, else the death of a process, else the innermost of all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from system.errors import DivergedError, DivergedFault, StorageFault, SystemFault, UserError

# The budget of failures is for this long.
BUDGET_S = 3600.0
# Ray's and Ray Train's errors by name, since this file knows no Ray: a process that is gone without an error of its
# own, and a group that found no machines in time.
DEATHS = frozenset({"RayActorError", "WorkerHealthCheckFailedError", "WorkerCrashedError", "OutOfMemoryError"})
NO_ROOM = "WorkerGroupStartupTimeoutError"
# What differs between two tellings of one fault: addresses, ids, numbers.
VARYING = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-f]{12,}\b|\d+(\.\d+)?")

# What the survivors of a dead process say, whoever it was that died, and whatever of.
PEER_GONE = re.compile(r"connection (was )?(closed|reset|refused)|broken pipe|remote process exited", re.IGNORECASE)
# Of an error that is not ours so much is told, characters.
LINE = 200

Kind = Literal["fault", "machine", "preemption", "no room", "diverged"]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the driver knows about a failure besides the error.

    Attributes:
        now_s: when, in seconds of any one clock.
        step: the step that was under way, as far as the trainers have told.
        progressed: a newer checkpoint was committed since the failure before, or since the job's start.
        machine: a machine of the trainers is gone: `drained` if that had been announced; None: all are there.
        started: the attempt has taken a step.
    """

    now_s: float
    step: int
    progressed: bool
    machine: Literal["gone", "drained"] | None = None
    started: bool = True


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure, as it is remembered.

    Attributes:
        time_s: when.
        kind: what it was; a preemption and a lack of room are nobody's fault and do not count.
        signature: what tells it from others; None: it is never the same as another.
        step: the step that was under way.
        progressed: a newer checkpoint lies between the failure before and this one.
    """

    time_s: float
    kind: Kind
    signature: str | None
    step: int
    progressed: bool

    @property
    def counts(self) -> bool:
        """Whether the budget pays for it: not for machines, as long as the run gets on between their ends."""
        return self.kind not in ("preemption", "no room") and not (self.kind == "machine" and self.progressed)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do after a failure.

    Attributes:
        action: `stop` the run; `retry` from the newest checkpoint; `rewind`: the same, without the steps that diverged.
        pause_s: how long to wait before that.
        reason: the sentence that says why.
        failure: to be remembered.
        repeated: the same fault at the same step as before: its videos are to be named.
        spent: the budget of failures does not pay for it.
    """

    action: Literal["stop", "retry", "rewind"]
    pause_s: float
    reason: str
    failure: Failure
    repeated: bool = False
    spent: bool = False


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
        inner = list(_by_rank(current).values())
        names = ("cause", "base_exc", "_base_exc", "controller_failure", "health_check_failure")
        waiting += [*inner, *(getattr(current, name, None) for name in (*names, "__cause__", "__context__"))]


def _by_rank(error: BaseException) -> dict[int, BaseException]:
    failures = getattr(error, "worker_failures", None)  # Ray Train: rank -> error
    return failures if isinstance(failures, dict) else {}


def _is_death(error: BaseException) -> bool:
    return bool(DEATHS & {kind.__name__ for kind in type(error).__mro__})


def root(error: BaseException) -> BaseException:
    """Return the error that counts.

    A user's before a fault of ours before the death of a process before the innermost of the others: when a process
    dies, the others fail for want of it.
    """
    chain = list(causes(error))
    for ours in (
        [each for each in chain if isinstance(each, UserError)],
        [each for each in chain if isinstance(each, SystemFault)],
        [each for each in chain if _is_death(each)],
    ):
        if ours:
            return ours[-1]
    return chain[-1]


def is_foreign(error: BaseException) -> bool:
    """Say whether the error that counts is none of ours: a process may be gone, and its machine with it."""
    return not isinstance(root(error), UserError | SystemFault)


def announced(error: BaseException) -> bool:
    """Say whether Ray calls a death in this error a preemption: it was on a machine that was being drained."""
    return any(getattr(each, "preempted", False) is True for each in causes(error))


def pause_after(failures: int) -> float:
    """Return how long to wait before the next attempt, seconds: 1, 2, 4, ... at most 60.

    An outage of some minutes must not spend the whole budget.
    """
    return min(60.0, 2.0 ** min(failures - 1, 10))


def _sentence(error: BaseException) -> str:
    """Return the line that says what happened."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # Ray keeps only the text of an error in an actor's constructor: a traceback, whose last line is the error.
    line = lines[-1] if "creation task" in lines[0] else lines[0]
    # Libraries write paragraphs; ours are kept whole.
    return line if isinstance(error, UserError | SystemFault) else line[:LINE].split(". ")[0]


def told(error: BaseException) -> str:
    """Return an error's kind and the line that says what happened."""
    reason = root(error)
    return f"{type(reason).__name__}: {_sentence(reason)}"


def signature_of(error: BaseException) -> str | None:
    """Return what two tellings of one fault have in common: kind and sentence, without numbers; of a death the rank.

    Returns:
        None for what the world does to us, which says nothing about a step: storage and connections that fail.
    """
    reason = root(error)
    if isinstance(reason, StorageFault | OSError) or PEER_GONE.search(_sentence(reason)):
        return None
    text = f"{type(reason).__name__}: {VARYING.sub('#', _sentence(reason))}"
    if not _is_death(reason):
        return text
    ranks = [
        rank
        for each in causes(error)
        for rank, inner in _by_rank(each).items()
        if any(x is reason for x in causes(inner))
    ]
    return f"{text} (rank {ranks[0]})" if ranks else None


def remember(error: BaseException, found: Circumstances) -> Failure:
    """Return a failure as it is remembered."""
    reason = root(error)
    kind: Kind = "fault"
    if isinstance(reason, DivergedFault):
        kind = "diverged"
    elif any(type(each).__name__ == NO_ROOM for each in causes(error)):
        kind = "no room"
    elif not isinstance(reason, UserError) and (found.machine == "drained" or announced(error)):
        kind = "preemption"
    elif not isinstance(reason, UserError) and found.machine == "gone":
        kind = "machine"
    # What is not ours and comes before a first step is of processes that start, not of a step.
    of_a_step = kind == "fault" and (found.started or isinstance(reason, SystemFault))
    signature = signature_of(error) if of_a_step else None
    return Failure(found.now_s, kind, signature, found.step, found.progressed)


def _since_progress(history: Sequence[Failure], newest: Failure) -> list[Failure]:
    """Return the failures before the newest one without a new checkpoint between them and it, newest first."""
    before: list[Failure] = []
    progressed = newest.progressed
    for failure in reversed(history):
        if progressed:
            break
        before.append(failure)
        progressed = failure.progressed
    return before


def decide(error: BaseException, history: Sequence[Failure], found: Circumstances, max_failures: int) -> Decision:
    """Decide what follows a failure.

    Args:
        error: what ended the attempt.
        history: the failures of this job before, oldest first.
        found: what else is known.
        max_failures: how many the recipe allows in an hour.

    Returns:
        `stop` for a user's error, for a fault that comes back at its step, or when the budget is spent; `rewind` for
        steps that diverged, once; else `retry`.
    """
    reason, failure = root(error), remember(error, found)
    sentence = _sentence(reason)
    if isinstance(reason, UserError):
        return Decision("stop", 0.0, sentence, failure)
    before = _since_progress(history, failure)
    if failure.kind == "diverged" and any(each.kind == "diverged" for each in before):
        return Decision("stop", 0.0, f"{sentence}; again, without a checkpoint since the last time", failure)
    text = told(error)
    if failure.signature and any((each.signature, each.step) == (failure.signature, failure.step) for each in before):
        why = f"step {failure.step} failed twice in the same way: {text}"
        return Decision("stop", 0.0, why, failure, repeated=True)
    spent = sum(each.counts and failure.time_s - each.time_s < BUDGET_S for each in history) + failure.counts
    if failure.counts and spent > max_failures:
        why = f"failure {spent} within an hour, and resources.max_failures={max_failures}: {text}"
        return Decision("stop", 0.0, why, failure, spent=True)
    if not failure.counts:
        what = "a machine was taken back" if failure.kind == "preemption" else "the workers found no room"
        return Decision("retry", 0.0, f"{what}: {text}", failure)
    what = "a machine is gone" if failure.kind == "machine" else f"failure {spent} of at most {max_failures} an hour"
    pause = pause_after(1 + sum(each.counts for each in before))
    return Decision("rewind" if failure.kind == "diverged" else "retry", pause, f"{what}: {text}", failure)


def final_error(error: BaseException, decision: Decision, videos: str = "") -> UserError | SystemFault:
    """Return the error that a run ends with after a decision to stop.

    Args:
        error: what ended the last attempt.
        decision: on it.
        videos: of the step that failed twice, for a line; where the decision says `repeated`.
    """
    reason = root(error)
    if isinstance(reason, UserError):
        return reason
    if decision.failure.kind == "diverged" and not decision.spent:
        return DivergedError(
            f"{decision.reason}: lower train.base_lr, set train.clip_grad, or use engine.precision=fp32"
        )
    if decision.repeated:
        return SystemFault(f"{decision.reason}; the step's videos: {videos}")
    return reason if isinstance(reason, SystemFault) else SystemFault(decision.reason)
