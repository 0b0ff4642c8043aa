from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from jobs import checks, preflight
from jobs.checks import check_cluster, check_layout, check_lease
from jobs.room import short_of, wanted_resources
from system import storage
from system.errors import ClusterError
from system.recipe import Recipe, load_recipe
from system.train.launch import flow_cpus
from tests.conftest import RECIPES


def recipe(*overrides: str) -> Recipe:
    few = ["resources.num_workers=2", "resources.decode_actors=[2,9]", "resources.mask.actors=[2,8]"]
    return load_recipe(Path(RECIPES / "mgmae-vitb-k400.yaml"), [*few, *overrides])


def test_shares_of_gpus_are_counted_at_the_fewest_actors() -> None:
    wanted = wanted_resources(recipe("resources.train_gpus_per_worker=0.75"), gpu=True)
    assert wanted == {"CPU": 2 * 4 + 2, "GPU": 2 * 0.75 + 2 * 0.5}


def test_flow_without_gpus_takes_a_core_for_each_actor() -> None:
    on_cpus = recipe("resources.mask.gpus_per_actor=0", "resources.worker_resources.train=1")
    assert wanted_resources(on_cpus, gpu=False) == {"CPU": 2 * 4 + 2 + 2, "train": 2}
    assert flow_cpus(on_cpus) == 2


def test_flow_beside_decoding_takes_nothing() -> None:
    beside = recipe("motion.source=dis", "resources.mask.gpus_per_actor=0")
    assert wanted_resources(beside, gpu=True) == {"CPU": 2 * 4 + 2, "GPU": 2}
    assert wanted_resources(recipe("motion.source=dis"), gpu=True) == wanted_resources(beside, gpu=True)


def test_how_many_streams_serve_the_workers_is_told_and_whether_actors_are_too_few_for_more() -> None:
    beside = ["motion.source=dis", "resources.mask.gpus_per_actor=0", "train.global_batch=1536"]
    assert "stream" not in check_layout(recipe(*beside, "resources.num_workers=8")).says
    many = [*beside, "resources.num_workers=24", "resources.decode_actors=3"]
    assert check_layout(recipe(*many)).says.endswith("padding 0%, 3 streams")
    few = check_layout(recipe(*many, "resources.decode_actors=2")).says
    assert "2 streams (for resources.ranks_per_stream it would be 3, but each needs actors of its own)" in few


def test_every_resource_that_is_short_is_told() -> None:
    asks = recipe("resources.worker_resources.train=1", "resources.train_gpus_per_worker=0.75")
    lines = short_of(asks, [{"CPU": 4.0, "GPU": 2.0, "train": 1.0}], gpu=True)
    assert lines[:2] == ["CPU: 10 wanted, 4 there", "train: 2 wanted, 1 there"]
    assert lines[2].startswith("GPU: 2.5 wanted for 2 x 0.75 (workers on train) and 2 x 0.5 (actors of resources.mask)")


def test_a_machine_that_is_too_small_is_refused_and_a_cluster_that_can_grow_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.checks.cluster_nodes", lambda: [{"CPU": 4.0}])
    asks = recipe("motion.source=dis", "resources.mask.gpus_per_actor=0", "resources.use_gpu=false")
    with pytest.raises(ClusterError, match="this machine is too small: CPU: 10 wanted, 4 there"):
        check_cluster(asks, fixed=True)
    assert "has to grow" in check_cluster(asks, fixed=False).says


def test_an_accelerator_that_no_machine_has_is_told_with_those_there() -> None:
    asks = recipe("resources.mask.accelerator=L4")
    node = {"CPU": 96.0, "GPU": 8.0, "accelerator_type:A100": 1.0}
    assert short_of(asks, [node], gpu=True) == ["resources.mask.accelerator=L4: no machine has it; there: A100"]
    assert short_of(asks, [node, {"GPU": 1.0, "accelerator_type:L4": 1.0}], gpu=True) == []


def test_a_store_that_lets_two_jobs_write_the_same_object_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = recipe(f"run.storage={tmp_path}")
    assert not check_lease(here).warns

    def write_over(uri: str, data: bytes) -> bool:
        storage.write(uri, data)
        return True

    monkeypatch.setattr(storage, "create", write_over)
    finding = check_lease(here)
    assert finding.warns
    assert "does not keep two jobs from writing the same object" in finding.says
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_preflight_tries_every_check_that_a_run_begins_with() -> None:
    source = inspect.getsource(checks.before_connecting) + inspect.getsource(checks.after_connecting)
    begins_with = set(re.findall(r"\bcheck_\w+", source))
    assert len(begins_with) >= 7
    assert begins_with <= set(re.findall(r"\bchecks\.(check_\w+)", inspect.getsource(preflight)))
