from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ray.data._internal.execution.operators import actor_pool_map_operator

from system.data.draining import work_to_the_end


def pools(draining: set[str]) -> Any:
    """A module as Ray's is: its pools refresh which of their actors take work."""

    class Pool:
        def __init__(self, *machines: str) -> None:
            self._running_actors = dict.fromkeys(machines)
            self._alive_actors_to_in_flight_tasks_heap: dict[str, int] = {}

        def refresh_actor_state(self) -> None:
            leaving = module.get_draining_nodes()
            usable = [each for each in self._running_actors if each not in leaving]
            self._alive_actors_to_in_flight_tasks_heap = dict.fromkeys(usable, 0)

        @property
        def usable(self) -> set[str]:
            self.refresh_actor_state()
            return set(self._alive_actors_to_in_flight_tasks_heap)

    module = SimpleNamespace(_NodeAwareActorPool=Pool, get_draining_nodes=lambda: dict.fromkeys(draining, 0))
    return module


def test_actors_work_to_the_end_where_a_stage_has_no_others() -> None:
    module = pools({"a", "b"})
    assert module._NodeAwareActorPool("a", "b").usable == set()
    work_to_the_end(module)
    assert module._NodeAwareActorPool("a", "b").usable == {"a", "b"}
    assert module.get_draining_nodes() == {"a": 0, "b": 0}


def test_actors_are_spared_where_a_stage_has_others() -> None:
    module = pools({"a"})
    work_to_the_end(module)
    assert module._NodeAwareActorPool("a", "b").usable == {"b"}
    assert module._NodeAwareActorPool().usable == set()


def test_it_is_changed_once() -> None:
    module = pools({"a"})
    work_to_the_end(module)
    changed = module._NodeAwareActorPool.refresh_actor_state
    work_to_the_end(module)
    assert module._NodeAwareActorPool.refresh_actor_state is changed


def test_nothing_is_changed_where_ray_has_other_names() -> None:
    module = SimpleNamespace(get_draining_nodes=dict)
    work_to_the_end(module)
    assert vars(module) == {"get_draining_nodes": dict}


def test_this_ray_has_the_names() -> None:
    pool: Any = actor_pool_map_operator._NodeAwareActorPool
    assert {"refresh_actor_state"} <= set(vars(pool))
    assert hasattr(actor_pool_map_operator, "get_draining_nodes")
    makers = [vars(each)["__init__"] for each in pool.__mro__[:-1] if "__init__" in vars(each)]
    names = {name for each in makers if hasattr(each, "__code__") for name in each.__code__.co_names}
    assert {"_running_actors", "_alive_actors_to_in_flight_tasks_heap"} <= names
