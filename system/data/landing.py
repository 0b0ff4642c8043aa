"""Where this process landed, by what Ray says to it; what follows from that is in placing.py, without Ray."""

from __future__ import annotations

import ray

from system.data.clock import untyped_ray
from system.data.hardware import Hardware
from system.data.placing import Place, Role


def my_gpus() -> tuple[str, ...]:
    """Return the GPUs that Ray gave this process a share of."""
    return tuple(str(each) for each in ray.get_gpu_ids())


def my_place(role: Role, name: str, device: str, hardware: Hardware | None = None) -> Place:
    """Return where this process landed.

    Args:
        role: what the process is.
        name: which of them it is.
        device: the kind of torch device that it computes on.
        hardware: what that is, where somebody wants to know it later.
    """
    node = ray.get_runtime_context().get_node_id()
    return Place(role, name, untyped_ray.util.get_node_ip_address(), node, my_gpus(), device, hardware)
