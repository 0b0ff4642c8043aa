"""Starts a run on a cluster, restarts it when the cluster fails it, and says how it is doing.

Ray Train carries out one attempt; attempts are counted here, so that a user's error stops at once and every other one
is judged by failures.py.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from system import storage
from system.config import fewest
from system.data.assemble import clip_bytes, flow_device, layout_for, lookahead_blocks, masks_beside_decoding
from system.data.clock import make_clock
from system.data.dataset import run_uri
from system.data.index import Index
from system.data.placing import placing_lines
from system.errors import ResumeError, SystemFault, UserError
from system.recipe import Recipe, check_resume, dump_recipe, recipe_from
from system.recipe_tree import parse_yaml
from system.train import checkpoint
from system.train.failures import decide, pause_after, root
from system.train.loop import Schedule, schedule_of
from system.train.progress import Progress, progress_from
from system.train.worker import STREAM, ClipDataConfig, GroupConfig, Job, stand_in, train_worker

Say = Callable[[str], None]
Show = Callable[[dict[str, Any], Schedule], None]

# Set before Ray starts: quicker notice of a dead worker, and no message storm.
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TQDM": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# How often a run that has not taken a step yet says so.
WAITING_S = 120.0
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
    cpus = resources.num_workers * resources.cpus_per_worker + flow_cpus(recipe) + fewest(resources.decode_actors)
    block = layout_for(recipe, resources.num_workers).clips_per_block * clip_bytes(recipe)
    blocks = lookahead_blocks(recipe, resources.num_workers) + 4 * resources.num_workers
    return max(int(cpus) + SPARE_CPUS, os.cpu_count() or 1), max(200_000_000, 2 * blocks * block)


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
        try:
            ray.init(address=wanted or "auto", runtime_env={"env_vars": dict(ENVIRONMENT)}, **common)
            return False
        except ConnectionError as error:
            if wanted:
                raise SystemFault(f"could not connect to the Ray cluster at {wanted}: {error}") from error
    cpus, store = local_resources(recipe)
    # Ray warns when it has started four times as many processes as may start at once, which is one a core.
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


def _free_resources() -> dict[str, float]:
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return free


def use_gpu(recipe: Recipe) -> bool:
    """Say whether the trainers take GPUs: as the recipe says, or whether the cluster has any now."""
    wanted = recipe.resources.use_gpu
    return cluster_resources().get("GPU", 0) > 0 if wanted == "auto" else wanted


def runs_raft_on_cpus(recipe: Recipe) -> bool:
    """Say whether a network computes the flow on CPUs, and nobody said that it should."""
    return flow_cpus(recipe) > 0 and recipe.motion.device == "auto"


def train(recipe: Recipe, state: RunState, *, say: Say, show: Show) -> None:
    """Run attempts until the run has reached its stop.

    Args:
        recipe: of the run.
        state: from `open_run`.
        say: takes lines for the user.
        show: takes the newest values of the trainers, about twice a second.

    Raises:
        UserError: what the user has to mend.
        SystemFault: when the budget of failures is spent.
    """
    # Once: a later attempt may begin while the cluster still replaces its only node with GPUs.
    gpu = use_gpu(recipe)
    if gpu and runs_raft_on_cpus(recipe):
        say("motion.source=raft runs on CPUs, many times slower than training: set resources.mask.gpus_per_actor")
    failures, reached = 0, state.progress.step
    while True:
        clock = make_clock()
        job = Job(recipe, state.index.uri, clock)
        try:
            with _watching(clock, recipe, state.schedule, show, say):
                _attempt(job, gpu=gpu)
            return
        except Exception as error:
            # Failures in a row: an attempt that has left a new checkpoint begins the count anew.
            before, reached = reached, max([reached, *checkpoint.complete_steps(run_uri(recipe))])
            failures = 1 if reached > before else failures + 1
            decision = decide(error, failures, recipe.resources.max_failures)
            if decision.action == "stop":
                reason = root(error)
                if isinstance(reason, UserError | SystemFault):
                    raise reason from error
                raise SystemFault(decision.reason) from error
            pause = pause_after(failures)
            say(f"{decision.reason}; starting again from the last checkpoint in {pause:.0f} s")
            time.sleep(pause)
        finally:
            ray.kill(clock)


def _attempt(job: Job, *, gpu: bool) -> None:
    """Start a worker group and wait for its end."""
    recipe, resources = job.recipe, job.recipe.resources
    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker, **resources.worker_resources}
    if gpu:
        per_worker["GPU"] = resources.train_gpus_per_worker
    with tempfile.TemporaryDirectory(prefix="tubelet-") as folder:
        # Ray's annotations: a function of a dict, and the configuration of Train v1. Any one value does, and v2 runs.
        trainer = TorchTrainer(
            train_worker,  # type: ignore[arg-type]
            train_loop_config=job,  # type: ignore[arg-type]
            torch_config=GroupConfig(timeout_s=int(resources.worker_timeout_s)),
            scaling_config=ScalingConfig(
                num_workers=resources.num_workers, use_gpu=gpu, resources_per_worker=per_worker
            ),
            datasets={STREAM: stand_in},
            dataset_config=ClipDataConfig(job),
            # Ray Train gets no checkpoint, so what it stores is of this attempt only.
            run_config=RunConfig(
                name=f"{recipe.run.name}-{uuid.uuid4().hex[:8]}",
                storage_path=folder,
                failure_config=FailureConfig(max_failures=0),
                logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]
            ),
        )
        trainer.fit()


@contextmanager
def _watching(clock: Any, recipe: Recipe, schedule: Schedule, show: Show, say: Say) -> Iterator[None]:
    """Pass on what the trainers say while an attempt is under way."""
    ended = threading.Event()

    def watch() -> None:
        told, begun = time.monotonic(), False
        while not ended.wait(0.5):
            try:
                values = ray.get(clock.progress.remote(), timeout=10)
                places = ray.get(clock.places.remote(), timeout=10) if values and not begun else []
            except (ray.exceptions.RayError, TimeoutError):
                continue
            if values:
                begun = True
                for line in placing_lines(places, all_roles=flow_device(recipe) == "cuda"):
                    say(line)
                show(values, schedule)
            elif time.monotonic() - told > WAITING_S:
                told = time.monotonic()
                free = {name: amount for name, amount in _free_resources().items() if name in ("CPU", "GPU")}
                say(f"waiting for the first step; the cluster has {free} free")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=15)
