"""Which machines of the cluster files Ray's own autoscaler starts for what a run asks for. No machine is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from system.section import most
from system.train.elastic import asks, worker_bundle
from tests.cluster.files import RAYCLUSTER, RAYJOB, RUNS, kuberay_types, read, recipe_of

TYPES: dict[str, Callable[[], Mapping[str, Any]]] = {
    "aws.yaml": lambda: read("aws.yaml")["available_node_types"],
    "gcp.yaml": lambda: read("gcp.yaml")["available_node_types"],
    RAYJOB: lambda: kuberay_types(RAYJOB),
    RAYCLUSTER: lambda: kuberay_types(RAYCLUSTER),
}
PLACED = next(run for run in RUNS.values() if any("decode_resources" in word for word in run))


def started(types: Mapping[str, Any], asked: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """Return the machines that Ray's autoscaler starts, by kind, on a cluster with its head alone."""
    configs = {
        name: NodeTypeConfig(name, 0, each["max_workers"], resources=each["resources"])
        for name, each in types.items()
        if not name.startswith("head")
    }
    requests = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(dict(each)) for each in asked])
    reply = ResourceDemandScheduler().schedule(SchedulingRequest(True, configs, resource_requests=requests))
    counts: Counter[str] = Counter()
    for launch in reply.to_launch:
        counts[launch.instance_type] += launch.count
    return dict(counts)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0, 3.0])
def test_actors_that_decode_start_machines_without_gpus_as_many_as_they_need(name: str, share: float) -> None:
    types, recipe = TYPES[name](), recipe_of(PLACED)
    (decoder,) = [each for each in asks(recipe, 1, gpu=True) if each.what == "decode actors"]
    actors = round(share * most(recipe.resources.decode_actors))
    machines = started(types, [decoder.others] * actors)
    places = types["decode"]["resources"]["decode"]
    assert machines == {"decode": min(-(-actors // places), types["decode"]["max_workers"])}


@pytest.mark.parametrize("name", TYPES)
def test_workers_start_machines_that_train_and_no_others(name: str) -> None:
    types, recipe = TYPES[name](), recipe_of(PLACED)
    workers = [worker_bundle(recipe, gpu=True)] * most(recipe.resources.num_workers)
    machines = started(types, workers)
    assert machines == {"train": -(-len(workers) // types["train"]["resources"]["train"])}
    assert not types["decode"]["resources"].get("GPU")


@pytest.mark.parametrize("name", TYPES)
def test_a_request_for_mere_cores_would_start_gpus_so_none_is_made(name: str) -> None:
    """Why system/data/growing.py asks for nothing by the number of cores, as Ray Data does."""
    types = TYPES[name]()
    cores = int(types["decode"]["resources"]["CPU"] * types["decode"]["max_workers"])
    assert started(types, [{"CPU": 1}] * cores).keys() == {"decode"}
    assert "train" in started(types, [{"CPU": 1}] * (cores + 1))
