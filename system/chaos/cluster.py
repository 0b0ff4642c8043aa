"""A cluster of several machines on this one: a head without CPUs, and nodes that are killed and replaced.

Everything listens on loopback behind a token that is made for this cluster; files lie in a folder of its own. Other
clusters on the machine are neither seen nor touched.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Self

from ray.cluster_utils import Cluster

from system.chaos.environment import Variables, environment
from system.chaos.processes import Process, descendants, end_all_in_peace, kill_with_descendants
from system.data.assemble import flow_device
from system.errors import RecipeError, SystemFault
from system.recipe import Recipe
from system.train.launch import ENVIRONMENT, FEW_RECORDS, START_NOTHING_AHEAD, local_resources

# Of the head's object store, and the least of a node's, bytes.
STORE_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class NodeSize:
    """What every node has: CPU cores that Ray counts, bytes of object store, and resources of the user's names."""

    cpus: int
    store_bytes: int
    resources: Mapping[str, float]


def node_size(recipe: Recipe, nodes: int) -> NodeSize:
    """Size nodes so that all but one of them hold what the recipe asks for.

    Raises:
        RecipeError: if it asks for GPUs: nodes of one machine cannot share them.
    """
    if recipe.resources.use_gpu is True or flow_device(recipe) == "cuda":
        name = "resources.use_gpu=true" if recipe.resources.use_gpu is True else "resources.mask.gpus_per_actor"
        raise RecipeError(
            f"{name}: the nodes of a chaos run have no GPU; override it with resources.use_gpu=false and"
            " resources.mask.gpus_per_actor=0"
        )
    cpus, store = local_resources(recipe)
    left = max(1, nodes - 1)
    # What does not divide among the nodes leaves a rest on each.
    rest = ceil(recipe.resources.cpus_per_worker) if left > 1 else 0
    asked = {**recipe.resources.worker_resources, **recipe.resources.decode_resources}
    own = {name: amount * cpus for name, amount in asked.items()}
    return NodeSize(ceil(cpus / left) + rest, max(STORE_BYTES, store), own)


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep what this process does on SIGTERM: a node that Ray starts here would drain itself first."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Nodes:
    """The cluster.

    Args:
        size: of each node.
        count: of nodes, beside the head.
        env: variables of every process in it.
        folder: takes its files; the path may not be long.
    """

    def __init__(self, size: NodeSize, count: int, env: Variables, folder: Path) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._size, self._count = size, count
        self._folder = str(folder)
        # Ray notes the newest cluster's address for whoever names none; here is nobody who could.
        (folder / "ray").mkdir()
        self._env = {**ENVIRONMENT, **START_NOTHING_AHEAD, **FEW_RECORDS, **env, "RAY_TMPDIR": self._folder}
        self._nodes: list[Any] = []
        self._cluster: Any = None

    def __enter__(self) -> Self:
        try:
            head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self._folder, **self._common(STORE_BYTES)}
            with environment(self._env), own_signals():
                self._cluster = Cluster(initialize_head=True, head_node_args=head)
            for _ in range(self._count):
                self.add()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        end_all_in_peace()

    @staticmethod
    def _common(store_bytes: int) -> dict[str, Any]:
        return {"num_gpus": 0, "object_store_memory": store_bytes, "node_ip_address": "127.0.0.1"}

    @property
    def address(self) -> str:
        """Where a driver finds the cluster."""
        return str(self._cluster.address)

    @property
    def missing(self) -> int:
        """Nodes that were killed and not replaced."""
        return self._count - len(self._nodes)

    def add(self) -> int:
        """Start a node and return its raylet's id. Takes seconds."""
        size = self._size
        wanted = {"num_cpus": size.cpus, "resources": dict(size.resources), **self._common(size.store_bytes)}
        try:
            with environment(self._env), own_signals():
                node = self._cluster.add_node(**wanted)
        except Exception as error:
            raise SystemFault(f"a node of the local cluster did not start: {error}") from error
        self._nodes.append(node)
        return _raylet(node)

    def raylets(self) -> list[int]:
        """Return the ids of the nodes' raylets, in the order of their starts."""
        return [_raylet(node) for node in self._nodes]

    def processes(self) -> list[Process]:
        """Return what the raylets have started, the head's too."""
        return [each for raylet in [_raylet(self._cluster.head_node), *self.raylets()] for each in descendants(raylet)]

    def kill(self, raylet: int) -> None:
        """End a node as the loss of its machine does: all of its processes at once."""
        node = next(node for node in self._nodes if _raylet(node) == raylet)
        kill_with_descendants(raylet)
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)  # they are gone; it only has to know


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)
