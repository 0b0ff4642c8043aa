"""Runs on a Ray of their own with two logical GPUs and no real one: where processes land.

    python -m tests.stream.placed FOLDER

FOLDER takes the runs, and what is found: `placed.json`. Started by test_placement.py: a Ray with GPUs cannot stand
beside the tests' session.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from ray.cluster_utils import Cluster
from torchvision.models.optical_flow import raft_small

from jobs.room import short_of
from system.data.clock import wait_for
from system.data.dataset import ensure_index
from system.recipe import Recipe
from system.train.attempts import train
from system.train.failures import told
from system.train.launch import ENVIRONMENT, START_NOTHING_AHEAD, cluster_nodes, open_run
from tests.small import stream_spec, tiny_recipe
from tests.stream.streams import recording_clock, take

# Clips of 4 frames of 128 px, one a block: the least that RAFT takes.
FLOW = (
    "data.uri=synthetic://moving?videos=4&frames=8&height=128&width=128",
    "data.size=128",
    "data.stride=1",
    "data.clips_per_block=1",
    "motion.source=raft",
    "motion.updates=1",
    "train.global_batch=2",
    "train.micro_batch=1",
    "train.steps=4",
    "train.warmup_steps=1",
    "checkpoint.every_steps=4",
    "resources.num_workers=2",
    "resources.use_gpu=auto",
    "resources.mask.actors=2",
    "resources.mask.gpus_per_actor=0.25",
)


def flow_recipe(folder: Path, *overrides: str) -> Recipe:
    """Return a recipe whose flow comes from RAFT with weights that are nobody's."""
    weights = folder / "raft.pth"
    if not weights.exists():
        torch.save(raft_small(weights=None).state_dict(), weights)
    return tiny_recipe(folder, *FLOW, f"motion.weights={weights}", *overrides)


def beside_trainers(folder: Path) -> dict[str, Any]:
    """Train with two workers and two actors on two GPUs."""
    recipe = flow_recipe(folder, "resources.train_gpus_per_worker=0.75")
    said: list[str] = []
    free: list[float] = []

    def show(_values: dict[str, Any], _schedule: Any) -> None:
        if not free:
            free.append(ray.available_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]

    short = short_of(flow_recipe(folder), cluster_nodes(), gpu=True)
    state = open_run(recipe, ensure_index(recipe), said.append)
    train(recipe, state, say=said.append, show=show)
    done = open_run(recipe, state.index.uri, said.append).progress.step
    return {"said": said, "free_after_a_step": free[0], "done": done, "short": short}


def on_a_labelled_group(folder: Path, cluster: Cluster) -> dict[str, Any]:
    """Take a stream whose flow wants L4s, on a cluster to which a machine with one is added."""
    recipe = flow_recipe(folder, "resources.mask.accelerator=L4", "resources.mask.gpus_per_actor=0.5")
    short = short_of(recipe, cluster_nodes(), gpu=True)
    node = cluster.add_node(
        num_cpus=1, num_gpus=1, resources={"accelerator_type:L4": 1}, object_store_memory=100_000_000
    )
    cluster.wait_for_nodes()
    taken = [0, 0]

    def each(rank: int, _number: int, _block: Any) -> bool:
        taken[rank] += 1
        return True

    with recording_clock() as clock:
        take(stream_spec(recipe, 2), clock, each)
        places = wait_for(clock.places.remote())
    return {
        "short": short,
        "short_with_the_machine": short_of(recipe, cluster_nodes(), gpu=True),
        "labelled": node.node_id,
        "landed": [place.node_id for place in places],
        "taken": taken,
    }


def insisting_on_cuda(folder: Path) -> str:
    """Return the line that tells of flow which wants a CUDA device and nothing else."""
    spec = stream_spec(flow_recipe(folder, "motion.device=cuda"), 1)
    try:
        with recording_clock() as clock:
            take(spec, clock, lambda *_: True)
    except ray.exceptions.RayError as error:
        return told(error)
    return "nothing was refused"


def main(folder: Path) -> None:
    """Start the cluster, run both, write down what was found, and leave nothing behind."""
    torch.set_num_threads(1)
    os.environ.update(ENVIRONMENT | START_NOTHING_AHEAD)
    temp = tempfile.mkdtemp(prefix="r", dir="/tmp")
    head = {"num_cpus": 8, "num_gpus": 2, "object_store_memory": 150_000_000, "temp_dir": temp}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
    try:
        ray.init(
            address=cluster.address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": dict(ENVIRONMENT)},
        )
        found = {
            "beside": beside_trainers(folder),
            "insisting": insisting_on_cuda(folder),
            "labelled": on_a_labelled_group(folder, cluster),
        }
        (folder / "placed.json").write_text(json.dumps(found))
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
        shutil.rmtree(temp, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
