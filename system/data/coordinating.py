"""Puts processes of a stream on machines of choice; its coordinator, which Ray Data puts where the stream is made.

A coordinator keeps a core busy at a few dozen blocks a second, and the machine that makes the streams of all cells is
the same for all of them. These are Ray's internals: where a version has other names nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ray.data._internal.iterator import stream_split_iterator
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_NAME = "SplitCoordinator"


class InTurn:
    """Says where a pool's next actor goes: on these machines one after the other, elsewhere where one is gone.

    Args:
        machines: their ids.
    """

    def __init__(self, machines: Sequence[str]) -> None:
        self._machines, self._next = tuple(machines), 0

    def __call__(self) -> dict[str, Any]:
        """Return the options of the next one."""
        machine = self._machines[self._next % len(self._machines)]
        self._next += 1
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(machine, soft=True)}


class _On:
    """Stands for Ray's class of coordinators: what it makes is pinned to another machine than Ray says.

    Args:
        actor: Ray's class.
        node_id: of the machine.
    """

    def __init__(self, actor: Any, node_id: str) -> None:
        self._actor, self._node_id = actor, node_id

    def options(self, **options: Any) -> Any:
        """Return the class with Ray's options, but for the machine."""
        if options.get("label_selector"):
            options["label_selector"] = dict.fromkeys(options["label_selector"], self._node_id)
        return self._actor.options(**options)


@contextmanager
def coordinator_on(node_id: str | None, module: Any = stream_split_iterator) -> Iterator[None]:
    """Let the coordinators of streams that are split in this context live on a machine.

    Args:
        node_id: of the machine; None: where Ray puts them.
        module: Ray's, with the class of coordinators.
    """
    actor = getattr(module, _NAME, None)
    if node_id is None or actor is None:
        yield
        return
    setattr(module, _NAME, _On(actor, node_id))
    try:
        yield
    finally:
        setattr(module, _NAME, actor)
