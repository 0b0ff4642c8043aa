"""How many workers an attempt has: pure arithmetic on what the machines have and what the recipe allows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from system.core.plan import StepLayout
from system.data.assemble import flow_device, layout_for, masks_beside_decoding
from system.errors import RecipeError
from system.recipe import Recipe
from system.section import fewest, most
from system.train.packing import ACCELERATOR, ACCELERATOR_SHARE, Ask, fits

# Room for more workers must have been seen for this long before a group is ended for it, seconds: a machine that has
# just come may go again, and its neighbours may be on their way.
GROW_AFTER_S = 15.0


def is_elastic(recipe: Recipe) -> bool:
    """Say whether the number of workers may differ from attempt to attempt."""
    return fewest(recipe.resources.num_workers) < most(recipe.resources.num_workers)


def told_workers(recipe: Recipe) -> str:
    """Return the number of workers for a line: `8`, or `2 to 8`."""
    low, high = fewest(recipe.resources.num_workers), most(recipe.resources.num_workers)
    return str(low) if low == high else f"{low} to {high}"


def layouts(recipe: Recipe) -> list[StepLayout]:
    """Return how a step is cut for each number of workers that the recipe allows, smallest first.

    Raises:
        RecipeError: if for every one of them too much of a step would be padding.
    """
    found, refused = [], None
    for ranks in range(fewest(recipe.resources.num_workers), most(recipe.resources.num_workers) + 1):
        try:
            found.append(layout_for(recipe, ranks))
        except RecipeError as error:
            refused = refused or error
    if refused is not None and not found:
        raise refused
    return found


def asks(recipe: Recipe, ranks: int, *, gpu: bool) -> list[Ask]:
    """Return what a number of workers holds and what the actors hold beside them, at their fewest, CPUs included."""
    resources, mask = recipe.resources, recipe.resources.mask
    gpus = resources.train_gpus_per_worker if gpu else 0.0
    wanted = [Ask("workers", ranks, gpus, worker_bundle(recipe, gpu=False))]
    if flow_device(recipe) == "cuda":
        kind = {f"{ACCELERATOR}{mask.accelerator}": ACCELERATOR_SHARE} if mask.accelerator else {}
        wanted.append(Ask("actors of resources.mask", fewest(mask.actors), mask.gpus_per_actor, kind))
    elif not masks_beside_decoding(recipe):
        wanted.append(Ask("actors of resources.mask", fewest(mask.actors), 0.0, {"CPU": 1.0}))
    decode = {"CPU": 1.0, **resources.decode_resources}
    return [*wanted, Ask("decode actors", fewest(resources.decode_actors), 0.0, decode)]


def worker_bundle(recipe: Recipe, *, gpu: bool) -> dict[str, float]:
    """Return what one worker asks for, as Ray counts it."""
    resources = recipe.resources
    bundle = {"CPU": resources.cpus_per_worker, **resources.worker_resources}
    return {**bundle, "GPU": resources.train_gpus_per_worker} if gpu else bundle


def all_bundles(recipe: Recipe, ranks: int, *, gpu: bool) -> list[dict[str, float]]:
    """Return what each process asks for of a group with its actors at their fewest, as Ray counts it."""
    bundles = []
    for ask in asks(recipe, ranks, gpu=gpu):
        each = {**ask.others, **({"GPU": ask.gpus} if ask.gpus else {})}
        bundles += [dict(each) for _ in range(ask.count)]
    return bundles


def largest_that_fits(
    recipe: Recipe, nodes: Sequence[Mapping[str, float]], *, gpu: bool, without: Collection[int] = ()
) -> int | None:
    """Return the largest number of workers that the recipe allows and the machines have room for; None: not one.

    Args:
        recipe: of the run.
        nodes: what each machine has, as Ray counts it, whatever is in use of it.
        gpu: the trainers take GPUs.
        without: numbers that are not to be tried.
    """
    sizes = [layout.num_ranks for layout in layouts(recipe)]
    fitting = (n for n in reversed(sizes) if n not in without and fits(nodes, asks(recipe, n, gpu=gpu)))
    return next(fitting, None)


@dataclass(frozen=True, slots=True)
class Room:
    """Room for more workers than there are, and since when it has been seen without a break, seconds."""

    ranks: int
    since_s: float


def seen_room(before: Room | None, there: int | None, running: int, now_s: float) -> Room | None:
    """Return the room that is there after one more look; it shrinks to the least that was seen on the way."""
    if there is None or there <= running:
        return None
    if before is None:
        return Room(there, now_s)
    return Room(min(before.ranks, there), before.since_s)


def may_grow(room: Room | None, now_s: float) -> bool:
    """Say whether room has been there for long enough to begin again with more workers."""
    return room is not None and now_s - room.since_s >= GROW_AFTER_S
