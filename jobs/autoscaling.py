"""See a run's machines come and go: `python -m jobs.autoscaling --recipe jobs/recipes/smoke.yaml --out FOLDER`.

A cluster on this machine begins with its head alone, and grows and shrinks by Ray's own autoscaler while the recipe is
trained. Writes machines.json and machines.png to the folder. The last line is the audit's verdict; exit code 0 only if
it is clean and no machine came that should not have. docs/clusters.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence

from jobs.chaos import scratch_folder, work_folder
from jobs.cli import parser, recipe_arguments, run, say
from system.chaos.environment import private_cluster, set_all
from system.chaos.words import seconds
from system.errors import RecipeError
from system.recipe import load_recipe


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("autoscaling", "See a run's machines come and go, on a cluster of this machine.")
    recipe_arguments(options)
    options.add_argument("--idle", default="6s", help="a machine without work for so long is taken away")
    options.add_argument("--more-steps", type=int, default=10, help="after each of the changes to the trainer")
    options.add_argument(
        "--short", action="store_true", help="do not slow the trainer down, which takes a minute or more"
    )
    options.add_argument("--out", metavar="FOLDER", help="keep all in this empty folder")
    given = options.parse_intermixed_args(arguments)
    if sys.platform != "linux":
        raise RecipeError(f"processes are found through /proc, which only Linux has; this is {sys.platform}")
    idle_s = seconds("--idle", given.idle)
    load_recipe(given.recipe, given.overrides)  # a mistake in it is told before anything starts
    with work_folder(given.out, keep=False) as work, scratch_folder() as scratch:
        variables = {**private_cluster(), "TMPDIR": str(scratch / "t")}
        set_all(variables)  # before Ray and torch are imported
        tempfile.tempdir = None  # looked up once, and that was before
        from system.chaos.growth import TYPES, Growing, run_growing  # noqa: PLC0415
        from system.report.machine_counts import timeline_picture  # noqa: PLC0415

        overrides = tuple(given.overrides)
        order = Growing(given.recipe, overrides, idle_s, given.more_steps, work.folder, scratch, not given.short)
        timeline, findings, verdict = run_growing(order, variables, say)
        picture = timeline_picture(timeline, list(TYPES), f"machines of {given.recipe}, by kind")
        (work.folder / "machines.png").write_bytes(picture)
        for line in [*timeline.lines(list(TYPES)), *(f"finding: {each}" for each in findings)]:
            say(line)
        say(verdict.goodput)
        say(verdict.audit)
    return 0 if verdict.clean and not findings else 1


if __name__ == "__main__":
    run(main)
