from __future__ import annotations

import pytest

from system.errors import CheckpointFault, DataError, StreamFault
from system.train.failures import causes, decide, pause_after, root


class WrappedError(Exception):
    """As Ray wraps an error of a task."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"a task failed\nTraceback ...\n{cause}")
        self.cause = cause


class OfWorkersError(Exception):
    """As Ray Train wraps the errors of its workers."""

    def __init__(self, failures: dict[int, BaseException]) -> None:
        super().__init__("workers failed")
        self.worker_failures = failures


def test_a_users_error_stops_at_once_however_it_is_wrapped() -> None:
    error = OfWorkersError(
        {0: WrappedError(StreamFault("lost")), 1: WrappedError(DataError("too many bad videos\n  a.mp4"))}
    )
    assert isinstance(root(error), DataError)
    decision = decide(error, 1, 10)
    assert decision.action == "stop"
    assert decision.reason == "too many bad videos"


@pytest.mark.parametrize(
    "error", [CheckpointFault("x"), RuntimeError("gloo timed out"), OfWorkersError({3: OSError("y")})]
)
def test_other_errors_are_tried_again_within_the_budget(error: Exception) -> None:
    assert decide(error, 2, 2).action == "retry"
    assert decide(error, 3, 2).action == "stop"
    assert "resources.max_failures=2" in decide(error, 3, 2).reason


def test_a_fault_of_ours_is_named_before_what_followed_from_it() -> None:
    error = OfWorkersError(
        {0: RuntimeError("connection closed by peer"), 1: WrappedError(StreamFault("the stream ended"))}
    )
    assert decide(error, 1, 1).reason == "failure 1 of at most 1: StreamFault: the stream ended"


def test_errors_that_wrap_each_other_end() -> None:
    one, other = WrappedError(ValueError("x")), WrappedError(ValueError("y"))
    one.cause, other.cause = other, one
    assert set(causes(one)) == {one, other}


def test_an_error_without_words_is_named_by_its_kind() -> None:
    assert decide(MemoryError(), 5, 1).reason.endswith("MemoryError")


def test_of_an_error_in_an_actors_constructor_the_last_line_counts() -> None:
    text = "The actor died because of an error raised in its creation task, ray::X()\n  File ...\nWeightsError: no file"
    assert decide(RuntimeError(text), 1, 3).reason.endswith(": WeightsError: no file")


def test_pauses_grow_and_stay_bearable() -> None:
    assert [pause_after(failures) for failures in (1, 2, 3, 8, 50)] == [1, 2, 4, 60, 60]
