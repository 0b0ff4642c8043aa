"""Whether trainers and the actors that compute flow fit on the GPUs there are. Pure arithmetic on what nodes have.

A GPU is a device: shares of one process lie on one device, so the sum of all shares says too little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

# What Ray takes of a node's `accelerator_type:...` for a process that asks for that type; a node has 1 of it.
ACCELERATOR = "accelerator_type:"
ACCELERATOR_SHARE = 0.001
# Shares add up with rounding.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Ask:
    """Processes of one kind.

    Attributes:
        what: their name, in the plural.
        count: how many.
        gpus: share of a GPU of each.
        others: custom resources of each, accelerator types among them.
    """

    what: str
    count: int
    gpus: float
    others: Mapping[str, float] = field(default_factory=dict)


def fits(nodes: Sequence[Mapping[str, float]], asks: Sequence[Ask]) -> bool:
    """Say whether all processes find their place, asks in order, each on the fullest device that it fits on.

    A process avoids nodes that a later ask depends on, where it can: one that must go to L4s finds them free.

    Args:
        nodes: what each node has, as Ray counts it.
        asks: of all processes; those that want no GPU take of `others` alone.
    """
    devices = [[1.0] * int(node.get("GPU", 0)) for node in nodes]
    left = [dict(node) for node in nodes]
    for number, ask in enumerate(asks):
        wanted_later = {name for later in asks[number + 1 :] for name in later.others} - set(ask.others)
        order = sorted(range(len(nodes)), key=lambda index: any(nodes[index].get(name) for name in wanted_later))
        for _ in range(ask.count):
            if not any(_place(devices[index], left[index], ask) for index in order):
                return False
    return True


def _place(devices: list[float], left: dict[str, float], ask: Ask) -> bool:
    """Take one process's share of a node, if it has it."""
    if any(left.get(name, 0.0) + ROUNDING < amount for name, amount in ask.others.items()):
        return False
    if ask.gpus:
        enough = [index for index, free in enumerate(devices) if free + ROUNDING >= ask.gpus]
        if not enough:
            return False
        devices[min(enough, key=lambda index: devices[index])] -= ask.gpus
    for name, amount in ask.others.items():
        left[name] -= amount
    return True


def smaller_shares(trainers: Ask | None, flow: Ask | None) -> Iterator[tuple[str, list[Ask]]]:
    """Yield other shares that might fit, as the override to use and what is then asked for."""
    if not trainers or not flow or not flow.gpus:
        return
    for many in range(1, int(0.5 / flow.gpus) + 1):
        share = round(1 - many * flow.gpus, 4)
        if 0.5 < share < trainers.gpus:
            yield f"resources.train_gpus_per_worker={share:g}", [replace(trainers, gpus=share), flow]
    for many in range(1, 9):
        share = int((1 - trainers.gpus + ROUNDING) / many * 1e4) / 1e4
        if 0 < share < flow.gpus:
            yield f"resources.mask.gpus_per_actor={share:g}", [trainers, replace(flow, gpus=share)]


def shortage(nodes: Sequence[Mapping[str, float]], trainers: Ask | None, flow: Ask | None) -> str | None:
    """Return what is short of GPUs and what would help, or None where everything fits."""
    asks = [ask for ask in (trainers, flow) if ask and ask.gpus]
    if not asks or fits(nodes, asks):
        return None
    wanted = sum(ask.count * ask.gpus for ask in asks)
    there = sum(node.get("GPU", 0.0) for node in nodes)
    parts = " and ".join(_told(ask) for ask in asks)
    how = f"{wanted:g} wanted for {parts}, {there:g} there"
    if wanted <= there + ROUNDING:
        how += ", none with enough left for the last of them"
    way = next((override for override, other in smaller_shares(trainers, flow) if fits(nodes, other)), None)
    return f"GPU: {how}" + (f" ({way} would fit)" if way else "")


def _told(ask: Ask) -> str:
    kinds = [name.removeprefix(ACCELERATOR) for name in ask.others if name.startswith(ACCELERATOR)]
    others = [name for name in ask.others if not name.startswith(ACCELERATOR)]
    where = f" on {', '.join(kinds + others)}" if ask.others else ""
    return f"{ask.count} x {ask.gpus:g} ({ask.what}{where})"
