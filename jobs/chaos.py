"""Train a recipe on a local cluster under fire: `python -m jobs.chaos --recipe jobs/recipes/smoke.yaml`.

Ends when the run is complete. The last two lines are the audit's verdict and where the time went; exit code 0 only if
the audit is clean, 1 if it is not. docs/chaos.md.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.cli import parser, recipe_arguments, run, say
from system.chaos.environment import private_cluster, set_all
from system.chaos.kills import Plan
from system.chaos.submitted import EndedError
from system.chaos.words import kinds, seconds, share
from system.errors import RecipeError, SystemFault
from system.recipe import load_recipe


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    given = _options(arguments)
    if sys.platform != "linux":
        raise RecipeError(f"chaos finds processes through /proc, which only Linux has; this is {sys.platform}")
    plan = Plan(
        kinds("--kill", given.kill),
        seconds("--every", given.every),
        seconds("--replace-after", given.replace_after),
        given.seed,
        given.most_kills,
    )
    s3_errors = None if given.s3_errors is None else share("--s3-errors", given.s3_errors)
    corrupt = share("--corrupt", given.corrupt)
    if given.nodes < 1:
        raise RecipeError(f"--nodes is at least 1, got {given.nodes}")
    load_recipe(given.recipe, given.overrides)  # a mistake in it is told before anything starts
    with work_folder(given.out, keep=given.keep) as work, scratch_folder() as scratch:
        variables = {**private_cluster(), "TMPDIR": str(scratch / "t")}
        set_all(variables)  # before Ray and torch are imported
        tempfile.tempdir = None  # looked up once, and that was before
        from system.chaos.story import Order, run_chaos  # noqa: PLC0415

        order = Order(given.recipe, tuple(given.overrides), plan, s3_errors, corrupt, given.nodes, work.folder, scratch)
        verdict = run_chaos(order, variables, say, keep=work.keep)
        work.keep = work.keep or not verdict.clean
        say(verdict.audit)
        say(verdict.goodput)
    return 0 if verdict.clean else 1


def _options(arguments: Sequence[str]) -> Namespace:
    options = parser("chaos", "Train a recipe on a local cluster under fire, and prove that nothing was lost.")
    recipe_arguments(options)
    options.add_argument("--kill", default="worker,node,actor,driver", help="what is killed, in shuffled rounds; none")
    options.add_argument("--every", default="20s", help="from the first checkpoint after a recovery to the next kill")
    options.add_argument("--most-kills", type=int, metavar="N", help="kill no more than N times")
    options.add_argument("--s3-errors", metavar="SHARE", help="put the run into a local S3 server; this share fails")
    options.add_argument("--corrupt", default="0%", metavar="SHARE", help="damage copies of so many videos, at least 1")
    options.add_argument("--nodes", type=int, default=2, help="nodes of the cluster, beside its head")
    options.add_argument("--replace-after", default="5s", help="from a node's end to the start of another")
    options.add_argument("--seed", type=int, default=0, help="of kills, faults and damage")
    options.add_argument("--out", metavar="FOLDER", help="keep the run and the job's output in this empty folder")
    options.add_argument("--keep", action="store_true", help="keep the work folder, wherever it is")
    return options.parse_intermixed_args(arguments)


@dataclass(slots=True)
class Work:
    """A folder to work in, and whether it stays."""

    folder: Path
    keep: bool


@contextmanager
def work_folder(out: str | None, *, keep: bool) -> Iterator[Work]:
    """Give a folder to work in, and delete it unless it is the user's, or to be kept, or a fault is to be looked into.

    Raises:
        RecipeError: if `out` is not an empty folder.
    """
    if out is not None:
        work = Work(Path(out).absolute(), keep=True)
        if work.folder.exists() and (not work.folder.is_dir() or any(work.folder.iterdir())):
            raise RecipeError(f"--out {work.folder} is not an empty folder; a chaos run begins anew")
        work.folder.mkdir(parents=True, exist_ok=True)
    else:
        work = Work(Path(tempfile.mkdtemp(prefix="tubelet-chaos-")), keep)
    try:
        yield work
    except (SystemFault, EndedError):
        work.keep = True
        raise
    finally:
        if not work.keep:
            shutil.rmtree(work.folder, ignore_errors=True)
        elif out is None:
            print(f"kept: {work.folder}", file=sys.stderr, flush=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder for sockets, whose paths may not be long, and for what killed processes leave behind."""
    with tempfile.TemporaryDirectory(prefix="tubelet-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "t").mkdir()
        yield Path(folder)


if __name__ == "__main__":
    run(main)
