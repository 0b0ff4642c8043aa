from __future__ import annotations

import inspect
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from ray.data._internal.actor_autoscaler import ActorPoolScalingRequest, AutoscalingActorPool
from ray.data._internal.actor_autoscaler.default_actor_autoscaler import DefaultActorAutoscaler
from ray.data._internal.cluster_autoscaler import RateBasedClusterAutoscaler
from ray.data._internal.execution.interfaces import ExecutionResources
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator, _ActorPool
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from system.data.growing import GROW_S, KEEP_S, SHRINK_S, Work, grow_by_actors, may_change


def worked(*spells: tuple[float, int]) -> tuple[Work, float]:
    """What a pool had to do in spells of (seconds, blocks), looked at ten times a second, and the time at the end."""
    work, now_s = Work(), 0.0
    for seconds, blocks in spells:
        for _ in range(round(seconds / 0.1)):
            now_s += 0.1001
            work.look(now_s, blocks)
    return work, now_s


def test_a_pool_grows_when_all_of_its_actors_were_busy_for_a_while() -> None:
    assert may_change(3, 1, *worked((GROW_S + 1, 2)))
    assert not may_change(3, 1, *worked((GROW_S / 2, 2)))  # not known for long enough
    assert not may_change(3, 2, *worked((GROW_S + 1, 2)))  # one block each
    assert not may_change(3, 1, *worked((GROW_S + 1, 1), (0.2, 2)))  # a step's blocks have just come


def test_a_pool_shrinks_when_half_of_its_actors_had_nothing_to_do_for_long() -> None:
    assert may_change(-1, 4, *worked((SHRINK_S + 1, 2)))
    assert not may_change(-1, 3, *worked((SHRINK_S + 1, 2)))
    assert not may_change(-1, 4, *worked((SHRINK_S / 2, 0)))


def test_a_pool_keeps_its_size_while_blocks_come_and_go_with_the_steps() -> None:
    steps = [(1.0, 8), (1.0, 0)] * round(SHRINK_S)  # four blocks at a time on average
    for work in (worked(*steps), worked(*steps, (1.0, 8))):
        assert not any(may_change(delta, size, *work) for delta in (-1, 1) for size in range(4, 7))


def test_a_long_past_is_forgotten() -> None:
    work, now_s = worked((10 * SHRINK_S, 8), (SHRINK_S + 1, 0))
    assert work.average(now_s, SHRINK_S) == 0
    assert len(work._looks) < 12 * SHRINK_S


class Pool:
    """A pool as Ray's is, as far as its growth goes."""

    def __init__(self, low: int, high: int, blocks: int = 0) -> None:
        self._low, self._high, self.size, self.blocks = low, high, low, blocks
        self.waiting = 0

    def min_size(self) -> int:
        return self._low

    def max_size(self) -> int:
        return self._high

    def current_size(self) -> int:
        return self.size

    def num_pending_actors(self) -> int:
        return self.waiting

    def num_tasks_in_flight(self) -> int:
        return self.blocks

    def per_actor_resource_usage(self) -> ExecutionResources:
        return ExecutionResources(cpu=1)


class Operator:
    """An operator as Ray's is."""

    def __init__(self, pool: Pool, asked: dict[str, Any]) -> None:
        self.pool, self._ray_remote_args = pool, asked

    def get_autoscaling_actor_pools(self) -> list[Pool]:
        return [self.pool]


def operator(pool: Pool, **asked: Any) -> Any:
    return Operator(pool, asked)


class Executor:
    """An executor as Ray's is: what it would have asked for, and how it would have changed its pools."""

    def __init__(self, *operators: Any, request: ActorPoolScalingRequest | None = None) -> None:
        self._topology = operators
        self.asked: list[Any] = []
        self._cluster_autoscaler: Any = SimpleNamespace(
            _send_resource_request=self.asked.append,
            try_trigger_scaling=lambda: self.asked.append([{"CPU": 1}]),
            on_executor_shutdown=lambda: self.asked.append("the end"),
            get_total_resources=lambda: ExecutionResources(cpu=3, object_store_memory=1e9),
        )
        there = ExecutionResources(cpu=2, object_store_memory=1e9)
        manager = SimpleNamespace(get_budget=lambda _: there, get_allocation=lambda _: there, get_op_usage=lambda _: 7)
        self._actor_autoscaler = SimpleNamespace(
            _derive_target_scaling_config=lambda *_: request, _resource_manager=manager
        )


PLACES = {"num_cpus": 1, "resources": {"decode": 1}}


def test_actors_with_a_place_of_their_own_may_grow_beyond_the_cores_that_are_there() -> None:
    decode, read = operator(Pool(1, 8), **PLACES), operator(Pool(2, 2), num_cpus=0)
    executor = Executor(decode, read)
    grow_by_actors(executor)
    manager = executor._actor_autoscaler._resource_manager
    for asked in (manager.get_budget, manager.get_allocation):
        assert asked(decode) == ExecutionResources(cpu=2 + 8, object_store_memory=1e9)
        assert asked(read) == ExecutionResources(cpu=2, object_store_memory=1e9)
    assert manager.get_op_usage(decode) == 7
    assert executor._cluster_autoscaler.get_total_resources() == ExecutionResources(cpu=3, object_store_memory=1e9)


def test_nothing_is_asked_for_but_that_the_stream_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(step=KEEP_S / 4)
    monkeypatch.setattr("system.data.growing.time.monotonic", lambda: float(next(now)))
    executor = Executor(operator(Pool(1, 8), **PLACES))
    grow_by_actors(executor)
    for _ in range(12):
        executor._cluster_autoscaler.try_trigger_scaling()
    executor._cluster_autoscaler.on_executor_shutdown()
    assert executor.asked[-1] == "the end"
    assert 1 < len(executor.asked) < 12
    assert not any(executor.asked[:-1])


@pytest.mark.parametrize(
    "pool", [operator(Pool(1, 8), num_cpus=1), operator(Pool(3, 3), **PLACES), operator(Pool(1, 2))]
)
def test_pools_of_one_size_and_those_without_places_are_left_to_ray(pool: Any) -> None:
    executor = Executor(pool)
    before = dict(vars(executor))
    grow_by_actors(executor)
    assert vars(executor) == before


def test_a_change_is_put_off_until_there_was_reason_for_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = itertools.count(step=0.25), int(2 * GROW_S / 0.25)
    monkeypatch.setattr("system.data.growing.time.monotonic", lambda: float(next(now)))
    pool = Pool(1, 8, blocks=2)
    executor = Executor(operator(pool, **PLACES), request=ActorPoolScalingRequest.upscale(delta=3))
    grow_by_actors(executor)
    deltas = [executor._actor_autoscaler._derive_target_scaling_config(pool, None, None).delta for _ in range(looks)]
    assert deltas == sorted(deltas)
    assert {deltas[0], deltas[-1]} == {0, 3}


@pytest.mark.parametrize(
    ("blocks", "waiting", "last"),
    [
        (1, 4, -1),  # two run, and one of them had nothing to do
        (4, 4, 0),  # two run, both busy: the others are still wanted
        (0, 6, 0),  # none has started
        (1, 0, 0),  # what Ray decides
    ],
)
def test_actors_that_wait_for_a_machine_in_vain_are_taken_back_when_those_that_run_have_little_to_do(
    monkeypatch: pytest.MonkeyPatch, blocks: int, waiting: int, last: int
) -> None:
    now, looks = itertools.count(step=0.25), int(2 * SHRINK_S / 0.25)
    monkeypatch.setattr("system.data.growing.time.monotonic", lambda: float(next(now)))
    pool = Pool(1, 8, blocks=blocks)
    pool.size, pool.waiting = 6, waiting
    executor = Executor(operator(pool, **PLACES), request=ActorPoolScalingRequest.no_op(reason="some are pending"))
    grow_by_actors(executor)
    deltas = [executor._actor_autoscaler._derive_target_scaling_config(pool, None, None).delta for _ in range(looks)]
    assert (deltas[0], deltas[-1]) == (0, last)
    pool.size, pool.waiting = 1, 0
    assert executor._actor_autoscaler._derive_target_scaling_config(pool, None, None).delta == 0  # the fewest


def test_a_pool_outside_its_bounds_and_the_end_of_a_stream_do_not_wait() -> None:
    pool = Pool(2, 8)
    pool.size = 1
    below = Executor(operator(pool, **PLACES), request=ActorPoolScalingRequest.upscale(delta=1))
    grow_by_actors(below)
    assert below._actor_autoscaler._derive_target_scaling_config(pool, None, None).delta == 1
    pool.size = 4
    ended = Executor(operator(pool, **PLACES), request=ActorPoolScalingRequest.downscale(delta=-1, force=True))
    grow_by_actors(ended)
    assert ended._actor_autoscaler._derive_target_scaling_config(pool, None, None).delta == -1


def test_nothing_is_changed_where_ray_has_other_names() -> None:
    executor = SimpleNamespace(_topology=[operator(Pool(1, 8), **PLACES)])
    grow_by_actors(executor)
    assert list(vars(executor)) == ["_topology"]


def test_this_ray_has_the_names() -> None:
    names = set(inspect.getsource(StreamingExecutor).split())
    assert {"self._cluster_autoscaler", "self._actor_autoscaler"} <= names
    assert "lambda: self._cluster_autoscaler.get_total_resources()," in inspect.getsource(StreamingExecutor)
    source = inspect.getsource(DefaultActorAutoscaler)
    assert {"self._resource_manager.get_budget(op)", "self._resource_manager.get_allocation(op)"} <= set(source.split())
    assert hasattr(RateBasedClusterAutoscaler, "_send_resource_request")
    parameters = list(inspect.signature(DefaultActorAutoscaler._derive_target_scaling_config).parameters)
    assert parameters == ["self", "actor_pool", "op", "op_state"]
    assert hasattr(ActorPoolMapOperator, "get_autoscaling_actor_pools")
    sizes = ("min_size", "max_size", "current_size", "num_pending_actors")
    assert all(
        hasattr(AutoscalingActorPool, name) for name in (*sizes, "num_tasks_in_flight", "per_actor_resource_usage")
    )
    # Ray takes away one that waits before one that has nothing to do.
    removes = inspect.getsource(_ActorPool._remove_inactive_actor)
    assert 0 < removes.index("_try_remove_pending_actor()") < removes.index("_try_remove_idle_actor()")
