"""The machines of a cluster as the driver sees them: which are there, which will be taken back, and a call for more."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray

from system.data.clock import untyped_ray

# Ray notices a machine's sudden end after 16 s. Its node manager takes no connection from the first moment on; one that
# takes none for this long is on a machine that is not there, seconds.
CONNECT_S = 1.0
# How often a call for machines is repeated, and how long the autoscaler keeps one that is not, seconds.
CALL_S = 30.0
CALL_LASTS_S = 90.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that is there, and what it has of everything that Ray counts."""

    node_id: str
    resources: dict[str, float]


def _answers(node: dict[str, Any]) -> bool:
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=CONNECT_S):
            return True
    except OSError:
        return False


def machines() -> list[Machine]:
    """Return the machines that are there and will stay: alive for Ray, answering, and not being drained."""
    leaving = draining()
    nodes = [node for node in untyped_ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    if not nodes:
        return []
    with ThreadPoolExecutor(min(16, len(nodes))) as pool:
        there = list(pool.map(_answers, nodes))
    return [Machine(node["NodeID"], node["Resources"]) for node, answers in zip(nodes, there, strict=True) if answers]


def draining() -> dict[str, float]:
    """Return the machines that are being drained, and when they will be taken back: seconds since 1970; 0: not said."""
    nodes: dict[str, int] = untyped_ray._private.state.state.get_draining_nodes() or {}
    return {node: deadline_ms / 1000 for node, deadline_ms in nodes.items()}


def call_for(bundles: Sequence[dict[str, float]], name: str) -> None:
    """Ask the autoscaler, where there is one, for machines that these bundles fit on; nothing asks for them otherwise.

    Ray Train asks for the workers that it starts, no more; Ray's public call would undo what Ray Data asks for.
    """
    from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator  # noqa: PLC0415

    coordinators: Any = default_autoscaling_coordinator
    try:
        coordinator = coordinators.get_or_create_autoscaling_coordinator()
        if bundles:
            asked = coordinator.request_resources.remote(
                requester_id=name,
                resources=[dict(each) for each in bundles],
                expire_after_s=CALL_LASTS_S,
                priority=coordinators.ResourceRequestPriority.LOW,
            )
        else:
            asked = coordinator.cancel_request.remote(requester_id=name)
        untyped_ray.get(asked, timeout=10)
    except (ray.exceptions.RayError, ValueError) as error:  # it is asked again a little later
        logging.getLogger(__name__).debug("no call for machines: %s", error)
