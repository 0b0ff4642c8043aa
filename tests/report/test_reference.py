from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from system.recipe import load_recipe
from system.report.reference import Reference, band_of, compare_loss, find_reference, mean_before
from tests.conftest import RECIPES

SMOKE = RECIPES / "smoke.yaml"
PLACE = RECIPES / "references.json"


def test_a_point_is_the_mean_of_the_five_steps_before_it_that_were_logged() -> None:
    steps = np.array([3.0, 5.0, 6.0, 9.0, 10.0])
    losses = np.array([100.0, 1.0, np.nan, 3.0, 100.0])
    assert mean_before(10, steps, losses) == 2.0
    assert np.isnan(mean_before(30, steps, losses))


def test_a_band_reaches_beyond_the_seeds_by_its_margin() -> None:
    steps = np.arange(10.0)
    assert band_of([(steps, np.full(10, 1.0)), (steps, np.full(10, 2.0))], [5, 10]) == [[5, 0.85, 2.3], [10, 0.85, 2.3]]


def test_only_points_that_a_run_has_reached_are_compared() -> None:
    reference = find_reference(load_recipe(SMOKE), PLACE)
    assert isinstance(reference, Reference)
    first = reference.points[0]
    steps = np.arange(float(first.step))
    (point,) = compare_loss(reference, steps, np.full(first.step, 0.25))
    assert (point.step, point.found) == (first.step, 0.25)
    assert compare_loss(reference, steps[:-1], np.full(first.step - 1, 0.25)) == []


def test_name_place_seed_and_resources_do_not_matter_to_a_reference() -> None:
    other = load_recipe(
        SMOKE, ["run.name=x", "run.storage=/tmp/y", "run.seed=7", "resources.num_workers=4", "motion.source=dis"]
    )
    assert isinstance(find_reference(other, PLACE), Reference)


@pytest.mark.parametrize("override", ["train.steps=200", "data.uri=/videos", "train.base_lr=1.0e-3"])
def test_a_run_of_another_recipe_has_no_reference_and_is_told_what_differs(override: str) -> None:
    found = find_reference(load_recipe(SMOKE, [override]), PLACE)
    assert isinstance(found, str)
    field = override.partition("=")[0]
    assert found.startswith(f"none was measured for this recipe; the nearest, smoke, differs in {field}")
    assert "`python -m jobs.reference --recipe FILE`" in found


def test_every_reference_is_of_a_recipe_that_is_there_with_points_in_order() -> None:
    for name, values in json.loads(PLACE.read_text()).items():
        recipe = load_recipe(RECIPES / f"{values['recipe']}.yaml", values["overrides"])
        reference = find_reference(recipe, PLACE)
        assert isinstance(reference, Reference)
        assert reference.name == name
        steps = [point.step for point in reference.points]
        assert steps == sorted(set(steps))
        assert all(0 < point.low < point.high for point in reference.points)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_file_without_references_gives_a_reason(tmp_path: Path, text: str) -> None:
    place = tmp_path / "references.json"
    place.write_text(text)
    assert isinstance(find_reference(load_recipe(SMOKE), place), str)
