"""A chaos run from its recipe to its verdict: what is prepared, put under fire, judged and taken away again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from system import storage
from system.chaos import copies, processes
from system.chaos.cluster import Nodes, node_size
from system.chaos.environment import Variables, merged, set_all
from system.chaos.fire import Fire, Notes
from system.chaos.kills import Plan
from system.chaos.memory import lines as memory_lines
from system.chaos.server import BUCKET, FaultyStore
from system.chaos.submitted import Submitted, command_for
from system.chaos.told import fault_line, recovery_lines
from system.data.dataset import run_uri
from system.errors import CheckpointFault, RecipeError
from system.recipe import Recipe, load_recipe
from system.storage import s3
from system.train.audit import audit
from system.train.goodput import read_records, summed, told_goodput
from system.train.past import open_past

Say = Callable[[str], None]

# How long the job may take to end by itself when all is taken away, seconds.
STOP_S = 5.0
# Failures in an hour that a run under fire may have, unless the command says: its machines are worse than any.
FAILURES = 1000


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for.

    Attributes:
        recipe: its file.
        overrides: laid over it.
        plan: what is killed, and when.
        s3_errors: share of the requests to storage that are broken; None: storage is a local folder.
        corrupt: share of the videos that are damaged.
        nodes: of the cluster, beside its head.
        folder: takes the run, the copies and the job's output.
        scratch: takes the cluster's files; its path may not be long.
    """

    recipe: str
    overrides: tuple[str, ...]
    plan: Plan
    s3_errors: float | None
    corrupt: float
    nodes: int
    folder: Path
    scratch: Path


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the audit is clean, its line, and the line that says where the time went."""

    clean: bool
    audit: str
    goodput: str


def check_files(recipe: Recipe) -> None:
    """Refuse files in S3, which a run whose S3 is a local server cannot see; videos are copied there.

    Raises:
        RecipeError: if the recipe names one.
    """
    files = {"train.init_from": recipe.train.init_from, "motion.weights": recipe.motion.weights}
    files |= {f"method.{name}": getattr(recipe.method, name) for name in recipe.record.files}
    for name, place in files.items():
        if place and storage.is_s3(str(place)):
            raise RecipeError(
                f"{name}={place}: with --s3-errors all of S3 is a local server; name a copy of the file on this machine"
            )


class _Home:
    """Where a run and its videos are kept: a folder here, or a bucket of the faulty store."""

    def __init__(self, order: Order, recipe: Recipe, store: FaultyStore | None, say: Say) -> None:
        self._order, self._recipe, self._store, self._say = order, recipe, store, say
        self.uri = f"s3://{BUCKET}" if store else str(order.folder)

    def prepare(self) -> list[str]:
        """Put what the run needs in place and return the overrides that lead it there."""
        order, videos = self._order, storage.join(self.uri, "videos")
        overrides = [f"run.storage={storage.join(self.uri, 'runs')}"]
        if not any(given.startswith("resources.max_failures=") for given in order.overrides):
            overrides.append(f"resources.max_failures={FAILURES}")
        if not order.corrupt and self._store is None:
            return overrides
        here = order.folder / "videos"
        here.mkdir(parents=True, exist_ok=True)
        copied = copies.copy_here(self._recipe, here, self._say)
        if self._store is not None:
            set_all(self._store.whole)
            s3.forget_client()
            s3.client().create_bucket(Bucket=BUCKET)
            copies.put(copied, videos)
        index = copies.index_copies(copied, videos)
        self._say(f"{len(copied)} videos copied to {videos}")
        copies.damage(self._recipe, index, order.corrupt, order.plan.seed, self._say)
        return [*overrides, f"data.uri={index}"]


def goodput_line(folder: str) -> str:
    """Return where the time of all jobs of a run went."""
    records = read_records(folder)
    if not records:
        return "goodput: no job of the run has left a record"
    return told_goodput(f"the run's {len(records)} jobs", summed([each.account for each in records.values()]))


def judge(folder: str, say: Say) -> Verdict:
    """Audit a run, tell what is wrong, and say where its time went."""
    try:
        found = audit(open_past(folder, say))
    except CheckpointFault as error:
        return Verdict(False, f"audit: FAILED: {error}", goodput_line(folder))
    for finding in found.findings:
        say(finding.line())
    return Verdict(found.clean, found.verdict, goodput_line(folder))


def run_chaos(order: Order, variables: Variables, say: Say, *, keep: bool = False) -> Verdict:
    """Train a recipe under fire until it is complete, and judge the run.

    Args:
        order: what is asked for.
        variables: of the cluster, from `environment.private_cluster`, which are this process's already.
        say: takes lines for the user.
        keep: the run stays in the order's folder, as one does in which the audit finds something.

    Raises:
        UserError: if the user has to mend something.
        SystemFault: if the run does not get on, or the cluster does not start.
    """
    recipe = load_recipe(order.recipe, order.overrides)
    size = node_size(recipe, order.nodes)
    processes.adopt_orphans()
    with ExitStack() as stack:
        store = None
        if order.s3_errors is not None:
            check_files(recipe)
            store = stack.enter_context(FaultyStore(order.s3_errors, order.plan.seed))
        home = _Home(order, recipe, store, say)
        overrides = [*order.overrides, *home.prepare()]
        recipe = load_recipe(order.recipe, overrides)
        job_variables = {**variables, **(store.broken if store else {})}
        nodes = stack.enter_context(Nodes(size, order.nodes, job_variables, order.scratch))
        counted = "1 node" if order.nodes == 1 else f"{order.nodes} nodes"
        say(f"{counted} of {size.cpus} CPUs at {nodes.address}; the run: {run_uri(recipe)}")
        command = command_for(order.recipe, overrides, nodes.address)
        notes = _burn(order, command, merged(job_variables), nodes, _Place(run_uri(recipe), store), say)
        for line in [*recovery_lines(notes.kills), *memory_lines(notes.memory)]:
            say(line)
        verdict = judge(run_uri(recipe), say)
        if store is not None:
            if keep or not verdict.clean:
                _bring_home(run_uri(recipe), order.folder / "runs" / recipe.run.name)
            counts = store.stop()
            say(fault_line(counts) if counts else "storage: the local S3 server did not end as it should")
        return verdict


def _bring_home(folder: str, here: Path) -> None:
    """Copy a run out of a store that ends with this."""
    for item in storage.list_objects(folder):
        storage.write(str(here / item.uri.removeprefix(f"{folder}/")), storage.read(item.uri))


@dataclass(frozen=True, slots=True)
class _Place:
    """The run's folder, and the store that it lies in."""

    folder: str
    store: FaultyStore | None


def _burn(order: Order, command: Sequence[str], env: Mapping[str, str], nodes: Nodes, run: _Place, say: Say) -> Notes:
    """Put the job under fire and take it away, however that ends."""
    job = Submitted(command, order.folder / "job.log", env)
    began = time.monotonic()

    def tell(line: str) -> None:
        say(f"[{time.monotonic() - began:6.0f} s] {line}")

    left_out = (run.store.pid,) if run.store else ()
    try:
        notes = Fire(job, nodes, run.folder, order.plan, tell, left_out).burn()
    finally:
        job.stop(STOP_S)
    say(f"complete after {time.monotonic() - began:.0f} s and {job.starts} starts of the job")
    return notes
