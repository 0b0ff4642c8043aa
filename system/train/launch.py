"""Before a run's first attempt: a cluster to run on, and what lies in the run's folder."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import ray

from system import storage
from system.access import check_cluster, is_loopback, make_token
from system.data.assemble import capped_blocks, clip_bytes, flow_device, masks_beside_decoding
from system.data.dataset import run_uri
from system.data.index import Index
from system.errors import ResumeError, SystemFault
from system.recipe import Recipe, check_resume, dump_recipe, recipe_from
from system.recipe_tree import parse_yaml
from system.section import fewest, most
from system.train import checkpoint
from system.train.elastic import layouts
from system.train.progress import Progress, progress_from
from system.train.schedule import Schedule, schedule_of

Say = Callable[[str], None]

# Set before Ray starts: quicker notice of a dead worker, and no message storm.
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Notices are answered by the driver (train/oversight.py), and what follows is its attempts' (train/attempts.py).
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # As Ray Train itself sets it for its controller: now all processes of a job have the same environment, and one that
    # waits for work may become any of them.
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # A block waits for one turn of the coordinator's loop less: with a thread it is passed on in the turn after.
    "RAY_DATA_METADATA_PREFETCH_ON_THREAD": "0",
    "RAY_TQDM": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# For a cluster that is started here. A node starts a process for each of its CPUs ahead of any use, and none of them is
# ever used: the job's processes have an environment of their own. Their imports would slow down the start.
START_NOTHING_AHEAD = {"RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0"}
# Records of past tasks that the cluster's server keeps for its pages: a stream makes millions of tasks.
FEW_RECORDS = {"RAY_task_events_max_num_task_in_gcs": "2000"}
# Logical CPUs of a local cluster beyond those that the recipe's actors and workers hold.
SPARE_CPUS = 2


def flow_cpus(recipe: Recipe) -> int:
    """Return the CPU cores that the actors hold which compute flow, at their fewest."""
    if masks_beside_decoding(recipe) or flow_device(recipe) == "cuda":
        return 0
    return fewest(recipe.resources.mask.actors)


def local_resources(recipe: Recipe) -> tuple[int, int]:
    """Return logical CPUs and bytes of object store for a cluster on this machine: what the recipe's stages hold."""
    resources = recipe.resources
    ranks = most(resources.num_workers)
    cpus = ranks * resources.cpus_per_worker + flow_cpus(recipe) + fewest(resources.decode_actors)
    cpus += recipe.probe.cpus if recipe.probe.uri is not None else 0
    block = max(layout.clips_per_block for layout in layouts(recipe)) * clip_bytes(recipe)
    # Ray Data takes half of a store at most.
    store = min(2 * capped_blocks(recipe, ranks) * block, _shared_memory())
    return max(int(cpus) + SPARE_CPUS, os.cpu_count() or 1), max(200_000_000, store)


def _shared_memory() -> int:
    """Return how large an object store may be on this machine, bytes: Ray puts a larger one on a disk."""
    try:
        return int(0.9 * shutil.disk_usage("/dev/shm").total)
    except OSError:  # macOS
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def connect(recipe: Recipe, address: str | None = None, *, verbose: bool = False, temp_dir: str | None = None) -> bool:
    """Connect to a cluster, or start one on this machine.

    Args:
        recipe: sizes a cluster that is started here.
        address: of the cluster; `local` starts one; default RAY_ADDRESS, then a cluster on this machine, then `local`.
        verbose: show what Ray's processes print.
        temp_dir: where a cluster that is started here keeps its files.

    Returns:
        Whether a cluster was started here: it is as large as it will ever be.

    Raises:
        ClusterError: if the cluster is on other machines and no token is sent to it.
        SystemFault: if there is no cluster at the address.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if ray.is_initialized():
        return False
    # Says at each start that token authentication is on; docs/security.md does.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    common: dict[str, Any] = {"log_to_driver": verbose, "logging_level": "WARNING"}
    wanted = address or os.environ.get("RAY_ADDRESS")
    if wanted != "local":
        if wanted:
            check_cluster(wanted, os.environ)
        try:
            ray.init(address=wanted or "auto", runtime_env={"env_vars": dict(ENVIRONMENT)}, **common)
            return False
        # Another version of Ray or Python is a RuntimeError, a token that the cluster does not take one of Ray's.
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            if wanted or not isinstance(error, ConnectionError):
                place = wanted or "this machine"
                raise SystemFault(f"could not connect to the Ray cluster at {place}: {error}") from error
    make_token(os.environ)
    cpus, store = local_resources(recipe)
    # Ray warns when it has started four times as many processes as may start at once, which is one a core.
    for key, value in {**START_NOTHING_AHEAD, **FEW_RECORDS}.items():
        os.environ.setdefault(key, value)
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(max(8, os.cpu_count() or 1)))
    ray.init(
        address="local",
        num_cpus=cpus,
        object_store_memory=store,
        include_dashboard=False,
        runtime_env={"env_vars": dict(ENVIRONMENT)},
        _temp_dir=temp_dir,
        **common,
    )
    return True


@dataclass(frozen=True, slots=True)
class RunState:
    """What lies in a run's folder before it is started.

    Attributes:
        schedule: steps of the run.
        progress: what is done.
        index: of its videos.
    """

    schedule: Schedule
    progress: Progress
    index: Index

    @property
    def complete(self) -> bool:
        """Whether all steps are done."""
        return self.progress.step >= self.schedule.total

    @property
    def reached(self) -> bool:
        """Whether this start has nothing to do."""
        return self.progress.step >= self.schedule.stop


def open_run(recipe: Recipe, index_uri: str, say: Say) -> RunState:
    """Look into the run's folder, refuse what cannot be continued, and keep the recipe there.

    Raises:
        ResumeError: if the run has another recipe or another set of videos.
    """
    folder = run_uri(recipe)
    index = Index(index_uri)
    recipe_uri = storage.join(folder, "recipe.yaml")
    try:
        text = storage.read(recipe_uri).decode()
        check_resume(recipe_from(parse_yaml(text, recipe_uri), recipe_uri), recipe)
    except storage.MissingError:
        pass
    found = checkpoint.latest(folder, say)
    if found and found.state["fingerprint"] != index.fingerprint:
        raise ResumeError(
            f"the run {recipe.run.name} was trained on other videos than {index_uri} lists: its fingerprint is"
            f" {found.state['fingerprint'][:12]}, the index's {index.fingerprint[:12]}; name the old index in data.uri,"
            " or give the new run another run.name"
        )
    storage.write(recipe_uri, dump_recipe(recipe).encode())
    progress = progress_from(found.state["progress"]) if found else Progress()
    return RunState(schedule_of(recipe, index.num_videos), progress, index)


def cluster_resources() -> dict[str, float]:
    """Return what the cluster has now."""
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return have


def cluster_nodes() -> list[dict[str, float]]:
    """Return what each machine of the cluster has now."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def dashboard() -> str | None:
    """Return the address of the dashboard of the cluster that was joined; None: it has none that is known here."""
    with suppress(ray.exceptions.RaySystemError):  # joined through Ray's client, which does not know it
        untyped_ray: Any = ray
        found = str(untyped_ray._private.worker.get_dashboard_url() or "")
        own = untyped_ray.util.get_node_ip_address()
        return reached(found, ray.get_runtime_context().gcs_address, own)
    return None


def reached(dashboard: str, head: str, own: str) -> str | None:
    """Return how this machine reaches a cluster's dashboard; None: not at all, or there is none.

    Args:
        dashboard: host:port as its head says it, where that is loopback unless it was told to open it.
        head: host:port of the cluster.
        own: address of this machine.
    """
    host, there = (urlsplit(f"//{each}").hostname or "" for each in (dashboard, head))
    if not host or (is_loopback(host) and not (is_loopback(there) or there == own)):
        return None
    return f"http://{dashboard}"


def use_gpu(recipe: Recipe) -> bool:
    """Say whether the trainers take GPUs: as the recipe says, or whether the cluster has any now."""
    wanted = recipe.resources.use_gpu
    return cluster_resources().get("GPU", 0) > 0 if wanted == "auto" else wanted


def runs_raft_on_cpus(recipe: Recipe) -> bool:
    """Say whether a network computes the flow on CPUs, and nobody said that it should."""
    return flow_cpus(recipe) > 0 and recipe.motion.device == "auto"
