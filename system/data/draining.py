"""Keeps a stream flowing while the machines of all of a stage's actors wait to be taken back.

Ray Data gives no more blocks to an actor on a machine that is being drained. Where a stage has no other actors its
stream stands still until the machine is gone, minutes perhaps, and the training that a notice should outlast stands
with it. A block that is lost with a machine is made again, the same, so nothing speaks against working to the end.
These are Ray's internals: where a version has other names nothing is changed.
"""

from __future__ import annotations

from typing import Any

from ray.data._internal.execution.operators import actor_pool_map_operator as operators

from system.data.callbacks import Callback

_untyped: Any = operators


def work_to_the_end(module: Any) -> None:
    """Let actor pools whose every actor is on such a machine use them; done once in a process.

    Args:
        module: Ray's, with `_NodeAwareActorPool` and `get_draining_nodes`.
    """
    pool: Any = getattr(module, "_NodeAwareActorPool", None)
    known = hasattr(module, "get_draining_nodes") and hasattr(pool, "refresh_actor_state")
    if not known or getattr(pool, "works_to_the_end", False):
        return
    refresh = pool.refresh_actor_state

    def refresh_actor_state(self: Any) -> None:
        refresh(self)
        if getattr(self, "_alive_actors_to_in_flight_tasks_heap", True) or not getattr(self, "_running_actors", None):
            return
        draining, module.get_draining_nodes = module.get_draining_nodes, dict
        try:
            refresh(self)
        finally:
            module.get_draining_nodes = draining

    pool.refresh_actor_state = refresh_actor_state
    pool.works_to_the_end = True


class WorkToTheEnd(Callback):
    """A callback of Ray Data's executor: what it changes has to be changed in the executor's process."""

    def before_execution_starts(self, executor: Any) -> None:
        """Change it."""
        work_to_the_end(_untyped)
