"""Lets several streams share the machines: each counts its part of all cores, also of a machine with few.

Ray Data divides what every machine has among the executions there are, in whole numbers: a machine with fewer cores
than there are streams counts for none of them, and a stream that may have no core cuts its block numbers only when
everything else has come to rest. The object store is divided the same way, by bytes, which does no harm. These are
Ray's internals: where a version has other names nothing is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.data import ExecutionResources

from system.data.callbacks import Callback
from system.data.clock import untyped_ray

# Under which name a stream's context says how many streams there are.
STREAMS = "tubelet_streams"
# Seconds between two looks at the cluster.
LOOK_S = 10.0


def with_part(given: ExecutionResources, have: Mapping[str, float], streams: int) -> ExecutionResources:
    """Return what one of several streams may use: what Ray gives it, and at least its part of all cores and GPUs.

    Args:
        given: by Ray.
        have: what the cluster has.
        streams: that share it.
    """
    return given.max(ExecutionResources(have.get("CPU", 0.0) / streams, have.get("GPU", 0.0) / streams))


class ShareMachines(Callback):
    """A callback of Ray Data's executor, which makes one for each execution of a stream."""

    def before_execution_starts(self, executor: Any) -> None:
        """Change how the executor learns what it may use, where there are several streams."""
        context, manager = getattr(executor, "_data_context", None), getattr(executor, "_resource_manager", None)
        streams = context.get_config(STREAMS, 1) if context is not None else 1
        given = getattr(manager, "_get_total_resources", None)
        if streams > 1 and manager is not None and given is not None:
            manager._get_total_resources = _looking(given, streams)


def _looking(given: Callable[[], ExecutionResources], streams: int) -> Callable[[], ExecutionResources]:
    have: Mapping[str, float] = {}
    looked = -LOOK_S

    def total() -> ExecutionResources:
        nonlocal have, looked
        if time.monotonic() - looked >= LOOK_S:
            have, looked = untyped_ray.cluster_resources(), time.monotonic()
        return with_part(given(), have, streams)

    return total
