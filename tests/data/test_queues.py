from __future__ import annotations

from typing import Any

from system.data.queues import CLOCK, Heard, StageNow, TellStages, stages_of, summed


class State:
    """As Ray's of an operator."""

    def __init__(self, before: int, after: int = 0) -> None:
        self._before, self._after = before, after

    def total_enqueued_input_blocks(self) -> int:
        return self._before

    def total_enqueued_output_blocks(self) -> int:
        return self._after


class Operator:
    """As Ray's, with a pool of three actors of which one has nothing to do."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_actor_info(self) -> Any:
        from ray.data._internal.actor_autoscaler.autoscaling_actor_pool import ActorPoolInfo

        return ActorPoolInfo(running=3, pending=0, restarting=0, active=2)


def topology() -> dict[Any, Any]:
    names = ("Input", "MapBatches(_Read)", "MapBatches(_Decode)", "split(2, equal=True)")
    return {Operator(name): State(number, 10) for number, name in enumerate(names)}


def test_what_stands_before_each_stage_is_told_but_for_block_numbers() -> None:
    assert stages_of(topology()) == [StageNow("decode", 2, 2, 3), StageNow("train", 13)]


def test_ray_has_what_is_asked_of_it() -> None:
    from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator
    from ray.data._internal.execution.streaming_executor_state import OpState

    assert callable(OpState.total_enqueued_input_blocks)
    assert callable(OpState.total_enqueued_output_blocks)
    assert callable(ActorPoolMapOperator.get_actor_info)


def test_what_it_does_not_know_is_left_out() -> None:
    assert stages_of(None) == []
    assert stages_of({object(): None, Operator("MapBatches(_Decode)"): object()}) == []
    TellStages().on_execution_step(object())


def test_streams_are_added_up_and_one_that_is_silent_is_forgotten() -> None:
    one, other = [StageNow("decode", 2, 1, 2), StageNow("train", 1)], [StageNow("decode", 3, 2, 2)]
    assert summed([one, other]) == [StageNow("decode", 5, 3, 4), StageNow("train", 1)]
    heard = Heard()
    heard.take(0, one, 0.0)
    heard.take(1, other, 25.0)
    assert heard.now(26.0) == summed([one, other])
    assert heard.now(40.0) == other


def test_the_clock_of_the_stream_is_told_now_and_then() -> None:
    told: list[tuple[int, list[StageNow]]] = []

    class Clock:
        class hear_stages:  # noqa: N801  as a method of an actor's handle
            @staticmethod
            def remote(cell: int, stages: list[StageNow]) -> None:
                told.append((cell, stages))

    class Context:
        def get_config(self, name: str, default: Any = None) -> Any:
            return Clock if name == CLOCK else 1

    executor = type("Executor", (), {"_data_context": Context(), "_topology": topology()})()
    callback = TellStages()
    callback.on_execution_step(executor)
    assert not told
    callback._last -= 60
    callback.on_execution_step(executor)
    callback.on_execution_step(executor)
    assert told == [(1, stages_of(topology()))]
