"""Whether a cluster has room for a run: what its stages hold, and what of that machines do not have. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from system.data.assemble import flow_device
from system.recipe import Recipe
from system.section import fewest
from system.train.launch import flow_cpus
from system.train.packing import ACCELERATOR, ACCELERATOR_SHARE, Ask, shortage


def gpu_asks(recipe: Recipe, *, gpu: bool) -> tuple[Ask | None, Ask | None]:
    """Return what the trainers and the actors that compute flow want of GPUs, at their fewest; None: nothing."""
    resources, mask = recipe.resources, recipe.resources.mask
    ranks = fewest(resources.num_workers)
    trainers = Ask("workers", ranks, resources.train_gpus_per_worker, resources.worker_resources)
    kind = {f"{ACCELERATOR}{mask.accelerator}": ACCELERATOR_SHARE} if mask.accelerator else {}
    flow = Ask("actors of resources.mask", fewest(mask.actors), mask.gpus_per_actor, kind)
    return trainers if gpu else None, flow if flow_device(recipe) == "cuda" else None


def wanted_resources(recipe: Recipe, *, gpu: bool) -> dict[str, float]:
    """Return what the stages hold while the run trains, at their smallest sizes."""
    resources, decode = recipe.resources, fewest(recipe.resources.decode_actors)
    ranks = fewest(resources.num_workers)
    asks = [ask for ask in gpu_asks(recipe, gpu=gpu) if ask]
    wanted = {
        "CPU": ranks * resources.cpus_per_worker + decode + flow_cpus(recipe),
        "GPU": sum(ask.count * ask.gpus for ask in asks),
    }
    for each, count in ((resources.worker_resources, ranks), (resources.decode_resources, decode)):
        for name, amount in each.items():
            wanted[name] = wanted.get(name, 0.0) + amount * count
    return {name: amount for name, amount in wanted.items() if amount}


def short_of(recipe: Recipe, nodes: Sequence[Mapping[str, float]], *, gpu: bool) -> list[str]:
    """Return a line for each resource that a run wants more of than nodes have, or cannot have in the shares it wants.

    Args:
        recipe: of the run.
        nodes: what each machine of the cluster has.
        gpu: the trainers take GPUs.
    """
    have: dict[str, float] = {}
    for node in nodes:
        for name, amount in node.items():
            have[name] = have.get(name, 0.0) + amount
    short = [
        f"{name}: {amount:g} wanted, {have.get(name, 0):g} there"
        for name, amount in wanted_resources(recipe, gpu=gpu).items()
        if name != "GPU" and have.get(name, 0) < amount
    ]
    trainers, flow = gpu_asks(recipe, gpu=gpu)
    kind = recipe.resources.mask.accelerator
    if flow and kind and not have.get(f"{ACCELERATOR}{kind}"):
        there = [name.removeprefix(ACCELERATOR) for name in sorted(have) if name.startswith(ACCELERATOR)]
        short.append(f"resources.mask.accelerator={kind}: no machine has it; there: {', '.join(there) or 'none'}")
        return short
    told = shortage(nodes, trainers, flow)
    return [*short, told] if told else short
