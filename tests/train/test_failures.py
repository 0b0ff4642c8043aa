from __future__ import annotations

import pickle

import pytest

from system.errors import (
    CheckpointFault,
    DataError,
    DivergedError,
    DivergedFault,
    StorageFault,
    StreamFault,
    SystemFault,
)
from system.train.failures import Circumstances, Failure, causes, decide, final_error, pause_after, root, signature_of


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


class RayActorError(Exception):
    """As Ray tells the death of a process; the policy knows it by its name."""

    preempted = False


class WorkerGroupStartupTimeoutError(Exception):
    """As Ray Train tells that a group has found no machines."""


def at(step: int = 7, *, now: float = 0.0, progressed: bool = False, machine: str | None = None) -> Circumstances:
    return Circumstances(now, step, progressed, machine)  # type: ignore[arg-type]


def after(errors: list[Exception], places: list[Circumstances], max_failures: int = 10) -> list[Failure]:
    history: list[Failure] = []
    for error, found in zip(errors, places, strict=True):
        history.append(decide(error, history, found, max_failures).failure)
    return history


def test_a_users_error_stops_at_once_however_it_is_wrapped() -> None:
    error = OfWorkersError(
        {0: WrappedError(StreamFault("lost")), 1: WrappedError(DataError("too many bad videos\n  a.mp4"))}
    )
    assert isinstance(root(error), DataError)
    decision = decide(error, [], at(), 10)
    assert decision.action == "stop"
    assert decision.reason == "too many bad videos"
    assert final_error(error, decision) is root(error)


@pytest.mark.parametrize(
    "error", [CheckpointFault("x"), RuntimeError("gloo timed out"), OfWorkersError({3: OSError("y")})]
)
def test_other_errors_are_tried_again_within_the_budget(error: Exception) -> None:
    history = after([error], [at(1)])
    assert decide(error, history, at(2, now=10), 2).action == "retry"
    spent = decide(error, history, at(2, now=10), 1)
    assert spent.action == "stop"
    assert "failure 2 within an hour, and resources.max_failures=1" in spent.reason
    assert isinstance(final_error(error, spent), SystemFault)


def test_the_budget_is_for_an_hour() -> None:
    error = RuntimeError("x")
    history = after([error, error], [at(1, now=0), at(2, now=100, progressed=True)])
    assert decide(error, history, at(3, now=3599, progressed=True), 2).action == "stop"
    assert decide(error, history, at(3, now=3600, progressed=True), 2).action == "retry"


def test_the_same_fault_at_the_same_step_stops_with_its_videos() -> None:
    first, second = StreamFault("rank 1 (pid 4711) lost 0xdeadbeef"), StreamFault("rank 0 (pid 12) lost 0xff")
    decision = decide(second, after([first], [at(7)]), at(7, now=9), 10)
    assert (decision.action, decision.repeated) == ("stop", True)
    error = final_error(second, decision, "a.mp4, b.mp4")
    assert isinstance(error, SystemFault)
    assert str(error).endswith("; the step's videos: a.mp4, b.mp4")
    assert "step 7 failed twice in the same way" in str(error)


@pytest.mark.parametrize("other", [at(8), at(7, progressed=True)])
def test_a_fault_at_another_step_or_after_a_new_checkpoint_is_another_one(other: Circumstances) -> None:
    error = StreamFault("lost")
    assert decide(error, after([error], [at(7)]), other, 10).action == "retry"


def test_a_fault_that_comes_back_behind_another_one_is_still_the_same() -> None:
    error, between = StreamFault("lost"), RuntimeError("x")
    assert decide(error, after([error, between], [at(7), at(7)]), at(7), 10).repeated


@pytest.mark.parametrize(
    "error",
    [
        StorageFault("s3://b/k: no answer"),
        ConnectionResetError("reset"),
        RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:7074. Check the logs."),
    ],
)
def test_what_the_world_does_to_us_says_nothing_about_a_step(error: Exception) -> None:
    assert decide(error, after([error, error], [at(), at()]), at(), 10).action == "retry"


def test_of_a_death_without_an_error_the_rank_counts() -> None:
    def dead(rank: int) -> Exception:
        return OfWorkersError({rank: RayActorError("The actor died unexpectedly."), 5: RuntimeError("peer closed")})

    assert signature_of(dead(1)) == "RayActorError: The actor died unexpectedly. (rank 1)"
    history = after([dead(1)], [at()])
    assert decide(dead(0), history, at(), 10).action == "retry"
    assert decide(dead(1), history, at(), 10).repeated


def test_machines_that_go_are_never_the_same_fault() -> None:
    error = OfWorkersError({0: RayActorError("died")})
    gone = at(machine="gone")
    decision = decide(error, after([error, error], [gone, gone]), gone, 10)
    assert (decision.action, decision.failure.counts) == ("retry", True)
    assert decide(error, after([error, error], [gone, gone]), gone, 2).action == "stop"


def test_machines_that_are_taken_back_cost_nothing_of_the_budget() -> None:
    error = OfWorkersError({0: RayActorError("died")})
    drained = at(machine="drained")
    history = after([error] * 20, [drained] * 20)
    decision = decide(error, history, drained, 0)
    assert (decision.action, decision.pause_s) == ("retry", 0.0)
    announced = RayActorError("died")
    announced.preempted = True
    assert not decide(WrappedError(announced), history, at(), 0).failure.counts
    assert decide(RuntimeError("x"), history, at(), 1).pause_s == 1.0


def test_a_group_without_room_costs_nothing_of_the_budget() -> None:
    decision = decide(WrappedError(WorkerGroupStartupTimeoutError("15 s")), [], at(), 0)
    assert (decision.action, decision.failure.kind) == ("retry", "no room")


def test_steps_that_diverge_are_left_out_once() -> None:
    error = WrappedError(DivergedFault("not finite in 3 steps", {5: "inf", 6: "nan", 7: "nan"}))
    first = decide(error, [], at(8), 10)
    assert first.action == "rewind"
    again = decide(error, [first.failure], at(9), 10)
    assert again.action == "stop"
    stopped = final_error(error, again)
    assert isinstance(stopped, DivergedError)
    assert "lower train.base_lr" in str(stopped)
    assert decide(error, [first.failure], at(90, progressed=True), 10).action == "rewind"


def test_steps_that_diverge_pay_from_the_budget() -> None:
    error = DivergedFault("not finite", {5: "inf"})
    history = after([error, error], [at(5), at(50, progressed=True)])
    decision = decide(error, history, at(500, progressed=True), 2)
    assert decision.action == "stop"
    assert "resources.max_failures=2" in decision.reason
    assert final_error(error, decision) is error, "what the budget does not pay for is no fault of the recipe"


def test_a_divergence_names_its_steps_on_the_other_side_of_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(DivergedFault("not finite", {5: "inf"})))
    assert (str(error), error.steps) == ("not finite", {5: "inf"})


def test_a_fault_of_ours_is_named_before_what_followed_from_it() -> None:
    error = OfWorkersError(
        {0: RuntimeError("connection closed by peer"), 1: WrappedError(StreamFault("the stream ended"))}
    )
    assert decide(error, [], at(), 1).reason == "failure 1 of at most 1 an hour: StreamFault: the stream ended"


def test_errors_that_wrap_each_other_end() -> None:
    one, other = WrappedError(ValueError("x")), WrappedError(ValueError("y"))
    one.cause, other.cause = other, one
    assert set(causes(one)) == {one, other}


def test_an_error_without_words_is_named_by_its_kind() -> None:
    assert decide(MemoryError(), [], at(), 0).reason.endswith("MemoryError")


def test_of_an_error_in_an_actors_constructor_the_last_line_counts() -> None:
    text = "The actor died because of an error raised in its creation task, ray::X()\n  File ...\nWeightsError: no file"
    assert decide(RuntimeError(text), [], at(), 3).reason.endswith(": WeightsError: no file")


def test_pauses_grow_and_stay_bearable() -> None:
    assert [pause_after(failures) for failures in (1, 2, 3, 8, 5000)] == [1, 2, 4, 60, 60]


def test_pauses_begin_anew_after_a_new_checkpoint() -> None:
    history = after([RuntimeError("x"), RuntimeError("y"), RuntimeError("z")], [at(), at(), at()])
    assert decide(OSError("x"), history, at(), 10).pause_s == 8
    assert decide(OSError("x"), history, at(progressed=True), 10).pause_s == 1


def test_what_befalls_processes_that_start_is_no_fault_of_a_step() -> None:
    error = RuntimeError("At least one of the worker actors failed to initialize.")
    starting = Circumstances(0.0, 7, progressed=False, started=False)
    history = after([error], [starting])
    assert decide(error, history, starting, 10).action == "retry"
    # A fault that we tell ourselves is one, whenever it comes.
    ours = CheckpointFault("torn")
    assert decide(ours, after([ours], [starting]), starting, 10).action == "stop"


def test_machines_that_die_do_not_spend_the_budget_of_a_run_that_gets_on() -> None:
    error = RayActorError("died")
    gone = [at(step, progressed=True, machine="gone") for step in range(20)]
    history = after([error] * 20, gone, max_failures=3)
    assert decide(error, history, at(20, progressed=True, machine="gone"), 3).action == "retry"
    stuck = [at(step, progressed=False, machine="gone") for step in range(3)]
    assert decide(error, after([error] * 3, stuck, 3), at(4, machine="gone"), 3).action == "stop"
