"""Lets the actors of a stream ask for machines, and give them back: what an autoscaler sees of a run.

Ray Data has its own idea of that, by cores, which fits a job that ends. It keeps a pool to a share of the cores that
are there; asks for more cores when half of them are taken, wherever those cores are, beside GPUs if need be; and holds
on to what it has asked for until its stream ends, so machines that have nothing to do stay. And it judges a pool by one
look: a step's blocks come at once and are done at once, so a pool swings between its bounds.

Here, for pools of `[min, max]` actors that ask for a place of their own (a custom resource or a share of a GPU):

- A pool grows up to its maximum, and an actor that finds no place waits. The waiting actor is the request: it names
  what it needs, a core and a place to decode say, which only machines of the right kind have.
- Nothing else is asked for. A machine without actors and blocks is idle, and the autoscaler takes it after its time.
- A pool grows when all of its actors were busy for a while, and shrinks when half of them were not for a longer one.
  Those that wait for a machine go first: Ray itself takes none away while one waits.

These are Ray's internals: where a version has other names nothing is changed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from system.data.callbacks import Callback

# An actor has two blocks when it is busy: one at work and one that is being fetched (`data/pipeline.py`). A pool grows
# when there were so many on average for each of its actors over so many seconds: the trainers take more than is made.
GROW_AT = 1.5
GROW_S = 5.0
# It shrinks, actor by actor, when there were no more than so many for each over so many seconds: longer than the steps
# of a large model, each of which asks for its blocks at once. An actor that is missed costs some seconds to start.
SHRINK_AT = 0.5
SHRINK_S = 20.0
# How often a pool's blocks are counted, seconds.
LOOK_S = 0.1
# How often Ray's coordinator of resources hears that the stream is there; it forgets who is silent for three minutes.
KEEP_S = 60.0


class Work:
    """How many blocks the actors of a pool had lately, at work or next to be."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def look(self, now_s: float, blocks: int) -> None:
        """Count blocks, unless they were counted a moment ago."""
        looks = self._looks
        if looks and now_s - looks[-1][0] < LOOK_S:
            return
        looks.append((now_s, blocks))
        while len(looks) > 1 and now_s - looks[1][0] >= SHRINK_S:  # the first that remains is old enough
            looks.popleft()

    def average(self, now_s: float, last_s: float) -> float | None:
        """Return the mean number of blocks over the last seconds; None: it is not known for that long."""
        if not self._looks or now_s - self._looks[0][0] < last_s:
            return None
        recent = [blocks for at_s, blocks in self._looks if now_s - at_s <= last_s]
        return sum(recent) / len(recent) if recent else None


def may_change(delta: int, size: int, work: Work, now_s: float) -> bool:
    """Say whether a pool may gain or lose actors, by what they had to do.

    Args:
        delta: actors that Ray would add (above 0) or take away.
        size: of the pool, with the actors that wait for a machine.
        work: of the pool.
        now_s: seconds of the clock that `work` was counted by.
    """
    blocks = work.average(now_s, GROW_S if delta > 0 else SHRINK_S)
    if blocks is None:
        return False
    return blocks >= GROW_AT * size if delta > 0 else blocks <= SHRINK_AT * size


class AskNothing:
    """Stands for Ray's cluster autoscaler of a stream, and asks for nothing.

    Args:
        inner: Ray's own.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._kept = time.monotonic()

    def try_trigger_scaling(self) -> None:
        """Ask for nothing, so that Ray's coordinator goes on to say what is there."""
        if time.monotonic() - self._kept >= KEEP_S:
            self._kept = time.monotonic()
            self._inner._send_resource_request([])

    def on_executor_shutdown(self) -> None:
        """Do what Ray's own does at a stream's end."""
        self._inner.on_executor_shutdown()

    def get_total_resources(self) -> Any:
        """Return what is there for the stream, as Ray's own does."""
        return self._inner.get_total_resources()


class Roomy:
    """What Ray's actor autoscaler asks how large a pool may be: a growing one may be as large as the recipe says.

    The budgets by which tasks are started stay what they are: one that waits would ask for a core of whatever kind.

    Args:
        inner: Ray's own resource manager.
        room: operator -> what its pools hold at their largest.
    """

    def __init__(self, inner: Any, room: Mapping[Any, Any]) -> None:
        self._inner, self._room = inner, room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get_budget(self, operator: Any) -> Any:
        """Return what an operator may take in addition."""
        return self._with_room(self._inner.get_budget(operator), operator)

    def get_allocation(self, operator: Any) -> Any:
        """Return what an operator may hold in all."""
        return self._with_room(self._inner.get_allocation(operator), operator)

    def _with_room(self, there: Any, operator: Any) -> Any:
        return there if there is None or operator not in self._room else there.add(self._room[operator])


def _growing(operator: Any) -> list[Any]:
    """Return an operator's pools of `[min, max]` actors that ask for a place of their own."""
    asked = getattr(operator, "_ray_remote_args", None) or {}
    if not (asked.get("resources") or asked.get("num_gpus")):
        return []
    return [pool for pool in operator.get_autoscaling_actor_pools() if pool.min_size() < pool.max_size()]


def _steadied(derive: Callable[..., Any], pools: list[Any]) -> Callable[..., Any]:
    """Return what decides how a pool changes: as Ray does, but not by one look."""
    works = {pool: Work() for pool in pools}

    def derive_steadily(pool: Any, operator: Any, state: Any) -> Any:
        request, size, now_s = derive(pool, operator, state), pool.current_size(), time.monotonic()
        if pool not in works:
            return request
        works[pool].look(now_s, pool.num_tasks_in_flight())
        waiting = pool.num_pending_actors()
        # By what those had to do that run: while a machine starts they are busy, and the rest are not to blame.
        in_vain = not request.delta and 0 < waiting < size and may_change(-1, size - waiting, works[pool], now_s)
        if in_vain and pool.min_size() < size:
            return type(request).downscale(delta=-1, reason="those that run have too little to do")
        beyond = not pool.min_size() <= size <= pool.max_size()
        if not request.delta or request.force or beyond or may_change(request.delta, size, works[pool], now_s):
            return request
        return type(request).no_op(reason="not for long enough")

    return derive_steadily


def grow_by_actors(executor: Any) -> None:
    """Let the growing pools of an executor ask for their machines themselves."""
    operators = getattr(executor, "_topology", None) or ()
    pools = {each: own for each in operators if (own := _growing(each))}
    cluster, actors = getattr(executor, "_cluster_autoscaler", None), getattr(executor, "_actor_autoscaler", None)
    known = hasattr(cluster, "_send_resource_request") and hasattr(actors, "_derive_target_scaling_config")
    if not (pools and known and hasattr(actors, "_resource_manager")):
        return
    untyped: Any = actors
    room = {each: own[0].per_actor_resource_usage().scale(own[0].max_size()) for each, own in pools.items()}
    executor._cluster_autoscaler = AskNothing(cluster)
    untyped._resource_manager = Roomy(untyped._resource_manager, room)
    every = [pool for own in pools.values() for pool in own]
    untyped._derive_target_scaling_config = _steadied(untyped._derive_target_scaling_config, every)


class GrowByActors(Callback):
    """A callback of Ray Data's executor: what it changes has to be changed in the executor's process."""

    def before_execution_starts(self, executor: Any) -> None:
        """Change it."""
        grow_by_actors(executor)
