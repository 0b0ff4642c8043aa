"""The errors of the system: what a person can fix, and what a retry may cure.

The failure policy depends on the difference, so it is in the types: a `UserError` stops a run at once with its
sentence, a `SystemFault` is retried. Nothing here imports anything.
"""

from __future__ import annotations


class TubeletError(Exception):
    """Base of every error that this system raises on purpose."""

    exit_code = 1


class UserError(TubeletError):
    """The person who launched the job can fix this; retrying cannot."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe says something that does not exist, does not fit or may not be said."""


class DataError(UserError):
    """The data that a recipe names is missing, empty, unreadable or refused."""


class ResumeError(UserError):
    """A run exists under this name that the recipe cannot continue."""


class LeaseError(UserError):
    """Another job holds the run, or has taken it over."""


class DivergedError(UserError):
    """Training left the finite numbers: the same steps again would do the same."""


class RunError(UserError):
    """A run's folder does not hold what is asked of it."""


class WeightsError(UserError):
    """A file of weights is missing, of another model, or not loadable safely."""


class ClusterError(UserError):
    """The cluster does not have, and cannot get, what the recipe asks for."""


class SystemFault(TubeletError):  # noqa: N818  the opposite of UserError, and no longer
    """Something outside of the recipe broke; the same work may succeed when it is tried again."""

    exit_code = 1


class StorageFault(SystemFault):
    """Storage did not answer as it should, after all retries."""


class CheckpointFault(SystemFault):
    """A checkpoint is torn or its checksums do not match."""


class StreamFault(SystemFault):
    """The data stream and the trainer disagree about where they are."""


class DivergedFault(SystemFault):
    """Several steps in a row gave no finite gradient; from the last checkpoint, and without them, training may go on.

    Args:
        message: a sentence.
        steps: step -> what was wrong with it.
    """

    def __init__(self, message: str, steps: dict[int, str]) -> None:
        super().__init__(message, steps)  # both, or it cannot be unpickled
        self.steps = steps

    def __str__(self) -> str:
        return str(self.args[0])


class HangFault(SystemFault):
    """A rank waited for longer than it may, and ended itself for it.

    Args:
        sentence: who waited for whom.
        step: that did not end; -1 before the first.
    """

    def __init__(self, sentence: str, step: int = -1) -> None:
        super().__init__(sentence, step)  # both, or it cannot be unpickled
        self.sentence, self.step = sentence, step

    def __str__(self) -> str:
        return self.sentence


class DecodeError(TubeletError):
    """One video cannot give the clip that was asked of it. A value that travels in a row, never the end of a run.

    Args:
        code: one word for counting: `open`, `decode`, `short`, `corrupt`, `deadline`, `crash`, `memory`, `storage`.
        reason: a sentence for the quarantine file.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)  # both, or it cannot be unpickled
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason
