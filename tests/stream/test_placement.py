"""Where trainers and the actors that compute flow land, on a Ray with two logical GPUs and no real one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.jobs.processes import job

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("placed")
    with job("tests.stream.placed", str(folder)) as run:
        run.wait(600)
    found: dict[str, Any] = json.loads((folder / "placed.json").read_text())
    return found


def test_two_trainers_and_two_flow_actors_share_two_gpus(placed: dict[str, Any]) -> None:
    said = "\n".join(placed["beside"]["said"])
    for role in ("trainers", "flow"):
        (line,) = [line for line in said.splitlines() if line.startswith(f"{role} on ")]
        assert line.endswith(" GPU 0, 1")


def test_the_stream_goes_on_while_the_trainers_hold_their_shares(placed: dict[str, Any]) -> None:
    assert placed["beside"]["free_after_a_step"] <= 2 - 2 * 0.75
    assert placed["beside"]["done"] == 4


def test_gpus_that_torch_does_not_see_are_told(placed: dict[str, Any]) -> None:
    told = [line for line in placed["beside"]["said"] if "torch sees no CUDA device" in line]
    assert [line.partition(":")[0] for line in told] == ["flow", "trainers"]
    assert all("2 of 2 have a GPU and compute on CPUs" in line for line in told)


def test_whole_gpus_for_the_trainers_leave_none_for_flow_and_the_check_says_what_would(placed: dict[str, Any]) -> None:
    (line,) = placed["beside"]["short"]
    assert line.startswith("GPU: 2.5 wanted for 2 x 1 (workers) and 2 x 0.25 (actors of resources.mask), 2 there")
    assert "resources.train_gpus_per_worker=0.75 would fit" in line


def test_flow_actors_land_on_the_labelled_group_alone(placed: dict[str, Any]) -> None:
    labelled = placed["labelled"]
    assert labelled["short"] == ["resources.mask.accelerator=L4: no machine has it; there: none"]
    assert labelled["short_with_the_machine"] == []
    assert labelled["landed"] == [labelled["labelled"]] * 2
    assert labelled["taken"] == [4, 4]


def test_flow_that_insists_on_cuda_ends_the_attempt_with_the_way_out(placed: dict[str, Any]) -> None:
    assert "motion.device=cuda needs a CUDA device, and torch sees none where Ray gave GPU" in placed["insisting"]
    assert "use motion.device=auto" in placed["insisting"]
