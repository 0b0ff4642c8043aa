from __future__ import annotations

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from system.chaos.autoscaled import configuration
from system.chaos.growth import PLACED, TYPES, findings
from system.recipe import load_recipe
from system.report.machine_counts import Look, Timeline
from system.section import most
from system.train.elastic import asks
from system.train.packing import fits
from tests.cluster.files import read
from tests.conftest import RECIPES


def test_ray_accepts_the_configuration() -> None:
    prepared = prepare_config(configuration(TYPES, "127.0.0.1:1", 6))
    validate_config(prepared)
    assert prepared["idle_timeout_minutes"] == 0.1
    assert prepared["max_workers"] == sum(each.most for each in TYPES.values())


def test_kinds_are_those_of_the_cluster_files() -> None:
    real = read("aws.yaml")["available_node_types"]
    for kind in ("decode", "train"):  # but for the GPUs of those that train
        assert TYPES[kind].resources().keys() - {"object_store_memory"} == real[kind]["resources"].keys() - {"GPU"}
    for each in (TYPES["decode"].resources(), real["decode"]["resources"]):
        assert each["CPU"] > each["decode"]


def test_the_run_fits_the_largest_cluster_and_needs_all_of_its_decoders() -> None:
    recipe = load_recipe(RECIPES / "smoke.yaml", PLACED)
    nodes = [each.resources() for each in TYPES.values() for _ in range(each.most)]
    assert fits(nodes, asks(recipe, 1, gpu=False))
    places = TYPES["decode"].places["decode"]
    assert places * (TYPES["decode"].most - 1) < most(recipe.resources.decode_actors) == places * TYPES["decode"].most


def test_a_run_that_asks_for_what_it_needs_has_no_findings() -> None:
    asked = [({"CPU": 1.0, "decode": 1.0}, 3), ({"CPU": 1.0, "train": 1.0}, 1), ({"CPU": 1.0}, 1)]
    assert not list(findings(Timeline([Look(0, {"decode": 2, "train": 1, "GPUs": 0}, asked=asked)]), TYPES))


@pytest.mark.parametrize(
    ("look", "said"),
    [
        (Look(0, {"GPUs": 1}), "a machine with GPUs was started: GPUs"),
        (Look(0, {}, asked=[({"decode": 1.0, "GPU": 0.5}, 1)]), "a GPU was asked for: {'GPU': 0.5, 'decode': 1.0}"),
    ],
)
def test_machines_with_gpus_and_requests_for_them_are_found(look: Look, said: str) -> None:
    assert list(findings(Timeline([Look(0, {}), look, look]), TYPES)) == [said]
