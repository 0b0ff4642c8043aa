"""Where a process landed, and on which torch device it computes.

Ray counts GPUs and hands out shares of them. It does not look whether torch can use one, nor does it keep a process to
its share of the memory. Here, for trainers and actors alike, what Ray gave meets what torch sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from system.data.hardware import Hardware
from system.errors import SystemFault

Role = Literal["trainers", "flow"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process landed.

    Attributes:
        role: what the process is.
        name: which of them it is.
        machine: its machine's address.
        node_id: Ray's id of its machine.
        gpus: the GPUs that it has a share of, as Ray numbers them on that machine.
        device: the kind of torch device that it computes on.
        hardware: what that is; None: nobody asked, as of actors.
    """

    role: Role
    name: str
    machine: str
    node_id: str
    gpus: tuple[str, ...]
    device: str
    hardware: Hardware | None = None


def device_kind(gpus: tuple[str, ...], *, sees_cuda: bool, insists: str | None) -> Literal["cuda", "cpu"]:
    """Return `cuda` for a process that has a share of a GPU and whose torch sees one, else `cpu`.

    Args:
        gpus: the GPUs that Ray gave the process a share of.
        sees_cuda: whether torch sees a CUDA device.
        insists: the setting by which a recipe takes nothing but CUDA, e.g. `motion.device=cuda`.

    Raises:
        SystemFault: if the recipe insists and there is none; another machine may do better.
    """
    if gpus and sees_cuda:
        return "cuda"
    if insists:
        raise SystemFault(
            f"{insists} needs a CUDA device, and torch sees none where Ray gave GPU {', '.join(gpus) or 'none'}; mend"
            f" that machine's driver or torch, or use {insists.partition('=')[0]}=auto, which falls back to CPUs"
        )
    return "cpu"


def placing_lines(places: Iterable[Place], *, all_roles: bool) -> list[str]:
    """Return what a user should know about where processes landed.

    Args:
        places: of a run's processes.
        all_roles: tell the GPUs of each role; otherwise only of GPUs that torch does not see.
    """
    known = sorted(places, key=lambda place: (place.role, place.machine, place.node_id, place.gpus))
    lines = []
    for role in dict.fromkeys(place.role for place in known):
        own = [place for place in known if place.role == role]
        if all_roles:
            lines.append(f"{role} on {_gpus(own)}")
        blind = [place for place in own if place.gpus and place.device == "cpu"]
        if blind:
            lines.append(
                f"{role}: {len(blind)} of {len(own)} have a GPU and compute on CPUs, since torch sees no CUDA device on"
                f" at least one of {_gpus(blind)}"
            )
    return lines


def _gpus(places: list[Place]) -> str:
    by_machine: dict[str, list[str]] = {}
    for place in places:
        by_machine.setdefault(place.machine, []).extend(place.gpus or ("none",))
    return "; ".join(f"{machine} GPU {', '.join(gpus)}" for machine, gpus in by_machine.items())
