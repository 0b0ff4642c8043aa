from __future__ import annotations

from typing import Literal

import pytest

from system.data.placing import Place, device_kind, placing_lines
from system.errors import SystemFault


def place(
    role: Literal["trainers", "flow"], name: str, gpus: tuple[str, ...], device: str, machine: str = "a"
) -> Place:
    return Place(role, name, machine, machine, gpus, device)


@pytest.mark.parametrize(
    ("gpus", "sees_cuda", "kind"),
    [
        (("1",), True, "cuda"),
        (("1",), False, "cpu"),
        # A machine may show all its GPUs to a process that has none.
        ((), True, "cpu"),
        ((), False, "cpu"),
    ],
)
def test_a_process_computes_on_a_gpu_that_it_was_given_and_sees(
    gpus: tuple[str, ...], sees_cuda: bool, kind: str
) -> None:
    assert device_kind(gpus, sees_cuda=sees_cuda, insists=None) == kind


def test_a_recipe_that_insists_on_cuda_does_not_fall_back() -> None:
    assert device_kind(("0",), sees_cuda=True, insists="motion.device=cuda") == "cuda"
    with pytest.raises(SystemFault, match=r"motion.device=cuda needs .* gave GPU 0.*use motion.device=auto"):
        device_kind(("0",), sees_cuda=False, insists="motion.device=cuda")
    with pytest.raises(SystemFault, match=r"Ray gave GPU none.*use resources.use_gpu=auto"):
        device_kind((), sees_cuda=True, insists="resources.use_gpu=true")


def test_places_are_told_by_role_and_machine() -> None:
    places = [place("trainers", "1", ("1",), "cuda"), place("trainers", "0", ("0",), "cuda")]
    places += [place("flow", "x", ("0",), "cuda", "b"), place("flow", "y", ("0",), "cuda", "b")]
    assert placing_lines(places, all_roles=True) == ["flow on b GPU 0, 0", "trainers on a GPU 0, 1"]
    assert placing_lines(places, all_roles=False) == []


def test_gpus_that_nobody_can_use_are_told_always() -> None:
    places = [place("trainers", "0", ("0",), "cuda"), place("trainers", "1", ("1",), "cpu")]
    assert placing_lines(places, all_roles=False) == [
        "trainers: 1 of 2 have a GPU and compute on CPUs, since torch sees no CUDA device on at least one of a GPU 1"
    ]
    assert placing_lines([place("trainers", "0", (), "cpu")], all_roles=False) == []
