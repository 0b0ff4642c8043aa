"""The commands that the files and documents name load their recipe, and fit the machines that the files declare."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pytest

from system.errors import RecipeError
from system.section import most
from system.train.elastic import asks
from system.train.packing import fits
from tests.cluster.files import MACHINES, RAYJOB, RUNS, Node, kuberay_types, recipe_of, sky_machines

# Runs that say where decoders and trainers go: they fit each file that declares such machines.
PLACED = {name: run for name, run in RUNS.items() if any("worker_resources" in word for word in run)}
SKY = [run for name, run in RUNS.items() if "sky.yaml" in name]


def run_fits(run: Sequence[str], nodes: Sequence[Node]) -> bool:
    """Say whether a run's largest number of workers and its fewest actors have room."""
    recipe = recipe_of(run)
    return fits(nodes, asks(recipe, most(recipe.resources.num_workers), gpu=True))


def test_commands_are_found_where_they_are_told() -> None:
    told = {name.rsplit("-", 1)[0] for name in RUNS}
    assert told == {f"cluster/{RAYJOB}", "cluster/README.md", "cluster/sky.yaml", "docs/clusters.md"}
    assert len(PLACED) == 4


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_recipe_overrides_parse(run: list[str]) -> None:
    assert recipe_of(run).run.storage == "s3://your-bucket/runs"


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_recipe_overrides_with_a_misspelt_key_are_refused(run: list[str]) -> None:
    misspelt = [each.replace("resources.num_workers", "resources.num_worker") for each in run]
    with pytest.raises(RecipeError, match="num_workers"):
        recipe_of(misspelt)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("run", PLACED.values(), ids=PLACED)
def test_runs_fit_the_machines_that_a_file_declares(run: list[str], name: str) -> None:
    # The SLURM script asks for eight GPUs, all for trainers, and RAFT's flow takes four more.
    too_few = name.startswith("slurm") and "mgmae" in run[1]
    assert run_fits(run, MACHINES[name]()) is not too_few


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("run", PLACED.values(), ids=PLACED)
def test_runs_that_ask_for_places_of_another_name_fit_nowhere(run: list[str], name: str) -> None:
    for asked in ("decode_resources.decode", "worker_resources.train"):
        assert not run_fits([each.replace(asked, asked + "r") for each in run], MACHINES[name]())


@pytest.mark.parametrize("name", MACHINES)
def test_decoders_have_no_place_on_machines_with_gpus_nor_trainers_on_those_without(name: str) -> None:
    nodes = MACHINES[name]()
    for node in nodes:
        assert not (node.get("decode") and node.get("GPU"))
        assert node.get("train", 0) <= node.get("GPU", 0)
    assert not run_fits(next(iter(PLACED.values())), [node for node in nodes if node.get("GPU")])


@pytest.mark.parametrize("name", [name for name in MACHINES if not name.startswith("slurm")])
@pytest.mark.parametrize("run", PLACED.values(), ids=PLACED)
def test_groups_can_grow_to_the_most_that_a_run_asks_for(run: list[str], name: str) -> None:
    resources, nodes = recipe_of(run).resources, MACHINES[name]()
    places = sum(node.get("decode", 0) for node in nodes)
    assert places >= most(resources.decode_actors) * resources.decode_resources["decode"]


@pytest.mark.parametrize("run", SKY)
def test_skypilots_machines_decode_and_train(run: list[str]) -> None:
    assert run_fits(run, sky_machines())
    assert not run_fits(run, sky_machines()[:1])


def test_kuberays_trainers_and_flow_use_every_gpu_of_the_group() -> None:
    (run,) = [run for name, run in RUNS.items() if RAYJOB in name]
    resources = recipe_of(run).resources
    gpus = kuberay_types()["train"]["resources"]["GPU"] * kuberay_types()["train"]["max_workers"]
    assert gpus == most(resources.num_workers) + most(resources.mask.actors) * resources.mask.gpus_per_actor


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_arguments_survive_a_second_shell(run: list[str]) -> None:
    assert shlex.split(" ".join(run)) == run
    assert not any(set(argument) & set("{}[]*?$;&|<>") for argument in run)
