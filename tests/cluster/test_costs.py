"""The sums of docs/clusters.md are those of its prices, and its machines those of aws.yaml."""

from __future__ import annotations

import re
from typing import Any

import pytest

from system.recipe import load_recipe
from tests.cluster.files import ROOT, read

TEXT = (ROOT / "docs/clusters.md").read_text()


def rows(head: str) -> list[list[str]]:
    """Return the rows of the table that begins with a head."""
    _, _, behind = TEXT.partition(head + "\n")
    lines = behind.split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def number(cell: str) -> float:
    return float(re.findall(r"[\d.,]+", cell)[0].replace(",", ""))


HOURLY = rows("| what | count | each, $/h | half price, $/h together |")
MACHINES = {row[0].split(",")[0]: row for row in HOURLY[:3]}


def types() -> Any:
    return read("aws.yaml")["available_node_types"]


def test_machines_are_counted_and_typed_as_in_the_file() -> None:
    for name, row in MACHINES.items():
        assert types()[name]["node_config"]["InstanceType"] in row[0]
        assert int(row[1]) == (types()[name]["max_workers"] or 1)
    assert {int(row[1]) for row in HOURLY[3:5]} == {1 + 4 + 3}


def test_prices_add_up() -> None:
    for row in HOURLY[:5]:
        spot = 1 if "not spot" in row[3] or "on demand" in row[0] else 0.5
        assert number(row[3]) == pytest.approx(spot * int(row[1]) * number(row[2]), abs=0.006)
    whole, less, idle = (number(row[3]) for row in HOURLY[5:])
    assert whole == pytest.approx(sum(number(row[3]) for row in HOURLY[:5]), abs=0.006)
    beside = number(HOURLY[3][2]) + number(HOURLY[4][2])  # a disk and an address
    assert less == pytest.approx(whole - number(MACHINES["train"][2]) / 2 - beside, abs=0.01)
    assert idle == pytest.approx(number(MACHINES["head"][2]) + beside, abs=0.006)


def test_a_finished_run_costs_what_its_hours_do() -> None:
    recipe = load_recipe(ROOT / "jobs/recipes/videomae-vitb-k400.yaml")
    clips = 240_000 * (recipe.train.epochs or 0)
    assert clips == 192e6
    hourly = number(HOURLY[6][3])
    reads = clips / 1e6 * 0.40
    for row in rows("| clips per second | hours | machines, $ | with reads and videos, $ |"):
        rate, hours, machines, together = map(number, row)
        assert hours == pytest.approx(clips / rate / 3600, abs=0.06)
        assert machines == pytest.approx(clips / rate / 3600 * hourly, abs=1)
        assert together == pytest.approx(machines + reads + 23, abs=1)
    assert f"{recipe.steps(240_000):,} steps" in TEXT
    assert f"{recipe.steps(240_000) // recipe.checkpoint.every_steps} checkpoints" in TEXT
