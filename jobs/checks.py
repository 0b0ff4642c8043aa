"""Checks that cost seconds and save hours: each is a function that raises what the user has to mend.

`pretrain` runs them before it asks for machines, `preflight` runs them and shows the results; later ones reuse them.
"""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from jobs.room import short_of, wanted_resources
from system import storage
from system.core.plan import cells_of
from system.data.assemble import cells_for, clip_bytes, clip_maker, limits_of
from system.data.dataset import SYNTHETIC, run_uri
from system.data.sample import decoded_sample
from system.data.sandbox import Sandbox
from system.data.sources import candidates
from system.errors import ClusterError, DataError, DecodeError, RecipeError, StorageFault
from system.evaluate.labelled_sets import online_sides
from system.motion.base import motion_source
from system.recipe import Recipe
from system.section import fewest, most
from system.train.checkpoint import complete_steps
from system.train.elastic import layouts
from system.train.launch import cluster_nodes, use_gpu
from system.train.lease import unenforced

Say = Callable[[str], None]
# Videos that are decoded to see whether the data can be read.
SAMPLE = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: what was looked at, what it said, and whether a person should think about it."""

    check: str
    says: str
    warns: bool = False


def check_storage(recipe: Recipe) -> Finding:
    """See whether the run's folder can be written, read and cleaned.

    Raises:
        DataError: if storage refuses, or does not answer at the first contact.
    """
    uri = storage.join(run_uri(recipe), f".preflight-{uuid.uuid4().hex[:8]}")
    try:
        storage.write(uri, b"preflight")
        if storage.read(uri) != b"preflight":
            raise DataError(f"{uri}: what was written is not what is read back")
        storage.delete([uri])
    except StorageFault as error:
        raise DataError(str(error)) from error
    return Finding("run folder", f"writable: {run_uri(recipe)}")


def check_lease(recipe: Recipe) -> Finding:
    """See whether the run's store keeps two jobs from writing the same object, by which one of them gets the run.

    Raises:
        DataError: if storage refuses, or does not answer.
    """
    try:
        enforced = storage.enforces_create(run_uri(recipe))
    except StorageFault as error:
        raise DataError(str(error)) from error
    if enforced:
        return Finding("lease", "the store writes an object only once where it is asked to")
    return Finding("lease", unenforced(run_uri(recipe)), warns=True)


def check_data(recipe: Recipe) -> Finding:
    """See whether the recipe's data exists and holds anything to train on.

    Raises:
        DataError: a missing bucket or folder, an empty prefix, a wrong endpoint or credential.
    """
    uri = recipe.data.uri
    if uri.startswith(SYNTHETIC):
        return Finding("data", f"generated: {uri}")
    try:
        if uri.endswith(".parquet"):
            return Finding("data", f"index of {storage.size(uri)} bytes: {uri}")
        first = next(candidates(uri))
    except StorageFault as error:
        raise DataError(str(error)) from error
    return Finding("data", f"found: {uri}, the first is {first.name}")


def check_sample(recipe: Recipe, index_uri: str) -> Finding:
    """Decode a few clips of the plan.

    Raises:
        DataError: if none of them can be decoded.
    """
    maker = clip_maker(recipe, index_uri)
    choices = [maker.choose(slot) for slot in range(min(SAMPLE, maker.plan.num_videos))]
    sandbox = Sandbox(recipe.data.views * clip_bytes(recipe), limits_of(recipe))
    try:
        found = [(each.choice, each.outcome) for each in decoded_sample(maker, choices, sandbox)]
    finally:
        sandbox.close()
    bad = [f"{choice.video.name}: {end.reason}" for choice, end in found if isinstance(end, DecodeError)]
    if len(bad) == len(choices):
        raise DataError(f"none of {len(choices)} sampled videos can be decoded; the first: {bad[0]}")
    told = f"; not: {'; '.join(bad)}" if bad else ""
    return Finding("sample", f"{len(choices) - len(bad)} of {len(choices)} sampled videos decode{told}")


def check_motion_weights(recipe: Recipe) -> Finding:
    """See whether the motion source can be made; on a cluster an actor would find out, with GPUs waiting.

    Raises:
        WeightsError: the weights are missing or of another network.
        DataError: storage refuses them.
    """
    if not recipe.needs_motion:
        return Finding("motion", f"not needed by {recipe.method.name}")
    try:
        motion_source(recipe.flow)
    except StorageFault as error:
        raise DataError(str(error)) from error
    return Finding("motion", recipe.flow.source)


def check_init_from(recipe: Recipe) -> Finding:
    """See whether the weights that a fresh run starts from can be read and fit the model; later nobody reads them.

    Raises:
        WeightsError: they are missing, damaged, could run code, or are of another model, or of other classes.
        DataError: storage refuses them.
    """
    if recipe.train.init_from is None:
        scratch = ", from scratch: train.init_from names none" if recipe.record.labelled else ""
        return Finding("weights", f"drawn from the seed{scratch}")
    from system.train.warm_start import check_fit, read_any  # noqa: PLC0415  torch

    try:
        if complete_steps(run_uri(recipe)):
            return Finding("weights", "the run's own: it has a checkpoint, train.init_from is not read again")
        weights = read_any(recipe.train.init_from)
        return Finding("weights", f"{weights.kind}, {check_fit(recipe, weights)}: {weights.uri}")
    except StorageFault as error:
        raise DataError(str(error)) from error


def check_layout(recipe: Recipe) -> Finding:
    """See whether the workers can share a step, in the smallest and the largest number of them that can.

    Raises:
        RecipeError: if too much of it would be padding.
    """
    found = layouts(recipe)
    ways = [
        f"over {layout.num_ranks} workers: {layout.blocks_per_rank} x {layout.clips_per_block} clips each,"
        f" padding {layout.padding:.0%}{_streams(recipe, layout.num_ranks)}"
        for layout in dict.fromkeys([found[0], found[-1]])
    ]
    few = most(recipe.resources.num_workers) - fewest(recipe.resources.num_workers) + 1 - len(found)
    left_out = f"; {few} numbers between are left out for their padding" if few else ""
    return Finding("step", f"{recipe.train.global_batch} clips {'; '.join(ways)}{left_out}")


def _streams(recipe: Recipe, ranks: int) -> str:
    """Say how many streams serve so many ranks, where it is not one, and where there are too few actors for more."""
    count, wanted = len(cells_for(recipe, ranks)), len(cells_of(ranks, recipe.resources.ranks_per_stream))
    if wanted == 1:
        return ""
    few = f" (for resources.ranks_per_stream it would be {wanted}, but each needs actors of its own)"
    return f", {count} stream{'s' * (count > 1)}{few if count < wanted else ''}"


def check_cluster(recipe: Recipe, *, fixed: bool) -> Finding:
    """See whether the cluster has what each stage asks for.

    Args:
        recipe: of the run.
        fixed: the cluster cannot grow: it was started on this machine for this job.

    Raises:
        ClusterError: if it has too little and cannot grow.
    """
    gpu = use_gpu(recipe)
    short = short_of(recipe, cluster_nodes(), gpu=gpu)
    if not short:
        there = ", ".join(f"{amount:g} {name}" for name, amount in wanted_resources(recipe, gpu=gpu).items())
        return Finding("cluster", f"{there} wanted and there")
    if not fixed:
        return Finding("cluster", f"has to grow before all workers run: {'; '.join(short)}")
    raise ClusterError(f"this machine is too small: {'; '.join(short)}; ask for less in `resources`")


def check_frozen(recipe: Recipe) -> Finding:
    """See whether the networks that targets are made with can be loaded; a worker would find out, holding its GPU.

    Raises:
        RecipeError: if a tokenizer is to be fitted with codes that cannot be.
        WeightsError: if a file is missing, is none, or is of another network.
    """
    wanted = recipe.record.to_fit(recipe.method, run_uri(recipe))
    if wanted is not None:
        from system.train.own_tokenizer import options_for  # noqa: PLC0415  torch

        options_for(recipe, wanted.num_codes)
        return Finding("targets", "a tokenizer is fitted to the videos before training")
    names = list(recipe.record.frozen(recipe.method, recipe.grid, run_uri(recipe)))
    return Finding("targets", f"the {' and the '.join(names)} can be loaded" if names else "need no network")


def check_trackers(recipe: Recipe) -> Finding:
    """See whether the libraries of the trackers are installed where the job runs.

    Raises:
        RecipeError: names the one that is not.
    """
    for name in recipe.telemetry.trackers:
        if importlib.util.find_spec(name) is None:
            raise RecipeError(
                f"telemetry.trackers={name} needs its library, which is not installed here: pip install"
                f" 'tubelet[{name}]', or leave it out"
            )
    return Finding("trackers", ", ".join(recipe.telemetry.trackers) or "none")


def check_probe(recipe: Recipe, say: Say) -> Finding:
    """See whether the videos that checkpoints are probed with have labels that make sense; in a run nobody is told.

    Raises:
        DataError: there are no videos, labels do not cover them, or classes have too few.
        RecipeError: `probe.videos` are too few.
    """
    if recipe.probe.uri is None:
        return Finding("probe", "none")
    try:
        sides = online_sides(recipe, say)
    except StorageFault as error:
        raise DataError(str(error)) from error
    views, data = sum(len(side.ids) * side.views.count for side in (sides.train, sides.test)), recipe.data
    return Finding(
        "probe",
        f"{len(sides.train.ids)} videos to learn from and {len(sides.test.ids)} to test on, of {len(sides.classes)}"
        f" classes; their {views} views take {views * data.num_frames * data.size**2 * 3 / 1e6:.0f} MB of a local disk",
    )


def before_connecting(recipe: Recipe, say: Say) -> None:
    """Run the checks that need no cluster."""
    check_layout(recipe)
    check_trackers(recipe)
    check_data(recipe)
    check_storage(recipe)
    check_motion_weights(recipe)
    check_frozen(recipe)
    if not recipe.record.labelled:  # what fits those depends on their classes, which are read later
        tell_init_from(recipe, say)
    tell_probe(recipe, say)


def tell_probe(recipe: Recipe, say: Say) -> None:
    """Check the videos that checkpoints are probed with, and say what they are.

    Raises:
        DataError, RecipeError: what is wrong with them, where a run begins; one that goes on is only told.
    """
    try:
        probe = check_probe(recipe, say)
    except (DataError, RecipeError) as error:
        if not complete_steps(run_uri(recipe)):
            raise
        say(f"probe: the run goes on without, {error}")
        return
    if recipe.probe.uri is not None:
        say(f"{probe.check}: {probe.says}")


def tell_init_from(recipe: Recipe, say: Say) -> None:
    """Check the weights that a run starts from, and say which."""
    weights = check_init_from(recipe)
    if recipe.train.init_from is not None:
        say(f"{weights.check}: {weights.says}")


def after_connecting(recipe: Recipe, say: Say, *, fixed: bool) -> None:
    """Run the checks that need a cluster."""
    finding = check_cluster(recipe, fixed=fixed)
    if "grow" in finding.says:
        say(f"{finding.check}: {finding.says}")
