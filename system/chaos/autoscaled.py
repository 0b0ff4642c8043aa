"""A cluster here that grows and shrinks by Ray's own autoscaler; its machines are nodes of Ray on this machine.

The autoscaler is the one of the cluster files (v2), its provider the one that Ray tests autoscaling with. Everything
listens on loopback, and is ended by process id. Nothing here runs `ray stop`, which ends every Ray of a machine.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE
from ray.autoscaler.v2 import sdk
from ray.cluster_utils import Cluster

from system.chaos.cluster import own_signals
from system.chaos.environment import Variables, environment
from system.chaos.processes import PROC, Process, descendants, end_all_in_peace, kill_with_descendants
from system.errors import SystemFault
from system.report.machine_counts import Look
from system.train.launch import ENVIRONMENT, FEW_RECORDS, START_NOTHING_AHEAD

STORE_BYTES = 100_000_000
# How often the autoscaler looks, seconds; 5 on other clusters.
UPDATE_S = 1
# What the provider calls a machine, in the environment of its processes.
NAME = "RAY_CLOUD_INSTANCE_ID"
# For the autoscaler: v2, and a provider that is for tests alone. A machine that has ended without a word is noticed
# after 4 s, not after 16: a test waits for it.
VARIABLES = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": str(UPDATE_S),
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass(frozen=True, slots=True)
class MachineType:
    """A kind of machine, as `available_node_types` of a cluster file has it.

    Attributes:
        cpus: cores that Ray counts.
        most: machines of the kind at most.
        gpus: that Ray counts; there need not be any.
        places: custom resources.
    """

    cpus: int
    most: int
    gpus: int = 0
    places: Mapping[str, int] = field(default_factory=dict)

    def resources(self) -> dict[str, int]:
        """Return what Ray counts."""
        gpus = {"GPU": self.gpus} if self.gpus else {}
        return {"CPU": self.cpus, **gpus, **self.places, "object_store_memory": STORE_BYTES}


def configuration(types: Mapping[str, MachineType], address: str, idle_s: float) -> dict[str, Any]:
    """Return what the autoscaler reads.

    Args:
        types: by name, the head left out.
        address: of the head.
        idle_s: a machine without work for so long is taken away.
    """
    node_types: dict[str, Any] = {
        FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
    }
    for name, each in types.items():
        node_types[name] = {
            "resources": each.resources(),
            "node_config": {},
            "min_workers": 0,
            "max_workers": each.most,
        }
    return {
        "cluster_name": "tubelet-here",
        "max_workers": sum(each.most for each in types.values()),
        "idle_timeout_minutes": idle_s / 60,
        "provider": {
            # By its module: under its own name v2 looks for an example that no package of Ray has.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,  # else it looks at port 6379
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,  # there is nothing to install
            "disable_launch_config_check": True,
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": node_types,
        # Nothing to run or to copy; Ray's defaults for a cloud fill these in, and there are none for such a provider.
        **{name: {} for name in ("auth", "file_mounts")},
        **{f"{name}setup_commands": [] for name in ("", "head_", "worker_")},
        **{f"{name}_start_ray_commands": [] for name in ("head", "worker")},
        **{name: [] for name in ("initialization_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter")},
    }


def free_port() -> int:
    """Return a port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _variable(pid: int, name: str) -> str | None:
    """Return a variable of another process's environment."""
    with suppress(OSError):
        for each in (PROC / str(pid) / "environ").read_bytes().split(b"\0"):
            key, found, value = each.partition(b"=")
            if found and key.decode(errors="replace") == name:
                return value.decode(errors="replace")
    return None


class Autoscaled:
    """The cluster.

    Args:
        types: of its machines, the head left out.
        idle_s: a machine without work for so long is taken away.
        env: variables of every process in it.
        folder: takes its files; the path may not be long.
    """

    def __init__(self, types: Mapping[str, MachineType], idle_s: float, env: Variables, folder: Path) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._types, self._folder = types, folder
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        (folder / "ray").mkdir()
        self._config = folder / "autoscaler.json"
        self._config.write_text(json.dumps(configuration(types, self.address, idle_s)))
        self._env = {
            **{**ENVIRONMENT, **START_NOTHING_AHEAD, **FEW_RECORDS, **VARIABLES, **env},
            "RAY_TMPDIR": str(folder),
        }
        self._cluster: Any = None
        self._began: float | None = None

    def __enter__(self) -> Self:
        head = {
            "num_cpus": 0,
            "num_gpus": 0,
            "include_dashboard": False,
            "temp_dir": str(self._folder),
            "object_store_memory": STORE_BYTES,
            "node_ip_address": "127.0.0.1",
            "gcs_server_port": self._port,
            "autoscaling_config": str(self._config),
        }
        named = {NAME: FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID}
        try:
            with environment({**self._env, **named}), own_signals():
                self._cluster = Cluster(initialize_head=True, head_node_args=head)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        end_all_in_peace()

    def look(self, step: int = 0) -> Look:
        """Say what is there now, by kind.

        Args:
            step: of the run, to keep with it.

        Raises:
            SystemFault: if the head does not answer.
        """
        status, now = self._status(), time.monotonic()
        self._began = self._began or now
        there = Counter(each.ray_node_type_name for each in [*status.active_nodes, *status.idle_nodes])
        coming = Counter(each.ray_node_type_name for each in status.pending_nodes)
        for launch in status.pending_launches:
            coming[launch.ray_node_type_name] += launch.count
        demands = status.resource_demands
        asked = [
            (dict(bundle.bundle), bundle.count)
            for demand in (
                *demands.ray_task_actor_demand,
                *demands.placement_group_demand,
                *demands.cluster_constraint_demand,
            )
            for bundle in demand.bundles_by_count
        ]
        kinds = {name: there[name] for name in self._types}
        return Look(now - self._began, kinds, {name: coming[name] for name in self._types}, step, asked)

    def _status(self) -> Any:
        """Return what the autoscaler says of the cluster.

        Raises:
            SystemFault: if the head does not answer.
        """
        try:
            return sdk.get_cluster_status(self.address)
        except Exception as error:
            raise SystemFault(f"the local cluster's head does not answer: {error}") from error

    def said(self) -> str:
        """Return what the autoscaler has written."""
        logs = self._folder / "session_latest" / "logs"
        return "".join(each.read_text(errors="replace") for each in sorted(logs.glob("monitor.*")))

    def names(self, kind: str) -> list[str]:
        """Return the machines of a kind that are there, the oldest first.

        Raises:
            SystemFault: if the head does not answer.
        """
        status = self._status()
        nodes = [*status.active_nodes, *status.idle_nodes]
        return sorted(each.instance_id for each in nodes if each.ray_node_type_name == kind)

    def take_away(self, name: str) -> None:
        """End a machine as the loss of it does: all of its processes at once, without a word.

        Raises:
            SystemFault: if it has none.
        """
        raylets = [each for each in descendants(os.getpid()) if self._is_raylet(each, name)]
        if not raylets:
            raise SystemFault(f"no process of the machine {name} is to be found")
        for raylet in raylets:
            kill_with_descendants(raylet.pid)

    @staticmethod
    def _is_raylet(process: Process, name: str) -> bool:
        return "/raylet/raylet" in process.title and _variable(process.pid, NAME) == name
