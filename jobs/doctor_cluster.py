"""The doctor's look at a cluster: whether it lets us in, and what each stage of a recipe finds there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from jobs.room import gpu_asks, short_of
from system.access import MODE, has_token
from system.data.assemble import flow_device, masks_beside_decoding
from system.doctor.findings import Finding, Severity
from system.errors import TubeletError
from system.recipe import Recipe
from system.section import Counted, fewest, most
from system.submit.client import takes_strangers
from system.train.elastic import told_workers
from system.train.launch import cluster_nodes, connect, dashboard, use_gpu

PART = "cluster"


def cluster(recipe: Recipe, address: str) -> list[Finding]:
    """Join a cluster and look at it.

    Raises:
        ClusterError: if no token is sent to a cluster on other machines.
        SystemFault: if it cannot be joined.
    """
    here = connect(recipe, address)
    nodes = cluster_nodes()
    where = None if here else dashboard()
    strangers = None if where is None else takes_strangers(where)
    return [
        check_access(address, os.environ, started_here=here, strangers=strangers),
        *stages(recipe, nodes, gpu=use_gpu(recipe), fixed=here),
    ]


def unreachable(address: str, error: TubeletError) -> Finding:
    """Return the finding of a cluster that cannot be joined."""
    if MODE in str(error):
        fix = f"export {MODE}=token RAY_AUTH_TOKEN_PATH=/path/of/the/cluster's/token"
        return Finding(PART, "access", "error", str(error), "every job is refused as this was", fix)
    why = "no job can start there from here"
    fix = (
        "ray status --address ADDRESS; the same Python and Ray on both sides; docs/clusters.md opens the way to a head"
    )
    return Finding(PART, "access", "error", str(error), why, fix.replace("ADDRESS", address))


def check_access(
    address: str, environment: Mapping[str, str], *, started_here: bool, strangers: bool | None
) -> Finding:
    """Judge whether a cluster that was joined asks for a token.

    Args:
        address: of the cluster.
        environment: of this process.
        started_here: it was started by this process, which gives it a token.
        strangers: its dashboard answers who sends no token; None: that was not seen.
    """
    if started_here:
        return Finding(PART, "access", "ok", "started here")
    why = "whoever reaches a cluster that asks for no token can run anything there"
    fix = f"export {MODE}=token before `ray start`, and here; docs/security.md"
    if strangers:
        what = f"joined {address}, whose dashboard answers without a token"
        return Finding(PART, "access", "warning", what, why, fix)
    if environment.get(MODE, "").lower() != "token" or not has_token(environment):
        return Finding(PART, "access", "warning", f"joined {address} without a token", why, fix)
    if strangers is None:
        what = f"joined {address}, a token was sent; whether it is asked for was not seen: no dashboard answers here"
        return Finding(PART, "access", "note", what, why, "run the doctor on the head's machine")
    return Finding(PART, "access", "ok", f"joined {address} with a token; without one its dashboard does not answer")


def stages(recipe: Recipe, nodes: Sequence[Mapping[str, float]], *, gpu: bool, fixed: bool) -> list[Finding]:
    """Return what each stage wants, and whether there is room for all of them at once.

    Args:
        recipe: of the run.
        nodes: what each machine of the cluster has.
        gpu: the trainers take GPUs.
        fixed: the cluster cannot grow.
    """
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU", "object_store_memory")}
    have = f"{len(nodes)} with {total['CPU']:g} cores, {total['GPU']:g} GPUs"
    have += f" and {total['object_store_memory'] / 2**30:.1f} GiB of object store"
    told = [Finding(PART, "machines", "ok", have), *(_stage(name, what) for name, what in wants(recipe, gpu=gpu))]
    short = short_of(recipe, nodes, gpu=gpu)
    if not short:
        return [*told, Finding(PART, "room", "ok", "for all stages at their smallest, at once")]
    why = "the first step waits until all stages have their actors"
    severity: Severity = "error" if fixed else "warning"
    fix = (
        "ask for less in `resources`"
        if fixed
        else "add machines, let the autoscaler add them, or ask for less in `resources`"
    )
    return [*told, Finding(PART, "room", severity, "; ".join(short), why, fix)]


def wants(recipe: Recipe, *, gpu: bool) -> list[tuple[str, str]]:
    """Return each stage and what it holds while a run trains, for people."""
    resources = recipe.resources
    trainers, flow = gpu_asks(recipe, gpu=gpu)
    train = f"{told_workers(recipe)} workers, {resources.cpus_per_worker:g} cores each"
    train += f" and {trainers.gpus:g} GPU" if trainers else ", no GPU"
    masks = "beside decoding: no actors of its own"
    if not masks_beside_decoding(recipe):
        each = f"{flow.gpus:g} GPU" if flow and flow_device(recipe) == "cuda" else "1 core"
        masks = f"{_counted(resources.mask.actors)} actors, {each} each"
    return [
        ("read", f"{_counted(resources.read_actors)} actors, no cores"),
        ("decode", f"{_counted(resources.decode_actors)} actors, 1 core each{_places(resources.decode_resources)}"),
        ("mask", masks),
        ("train", train + _places(resources.worker_resources)),
    ]


def _stage(name: str, what: str) -> Finding:
    return Finding(PART, name, "ok", what)


def _counted(size: Counted) -> str:
    low, high = fewest(size), most(size)
    return f"{low}" if low == high else f"{low} to {high}"


def _places(asked: Mapping[str, float]) -> str:
    return "".join(f", {amount:g} {name}" for name, amount in asked.items())
