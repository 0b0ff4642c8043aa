"""Plan a run's machines before it starts: `python -m jobs.plan --recipe FILE --index .../index.parquet --gpu h100`.

Half a minute of storage, decoding, masks, re-encoding and steps on a sample of the user's videos; then what limits the
run, how many cores a GPU wants, whether re-encoding pays, hours, costs, and how often to write checkpoints. Neither Ray
nor a GPU is needed. `--keep` leaves the plan with the run, which at its end says how far off it was.
"""

from __future__ import annotations

import json
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli import amount, parser, positive, recipe_arguments, run, say
from system.errors import DataError, RecipeError
from system.planning.workers import asked_accelerator, known
from system.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from system.planning.records import Plan

# From a preemption to the next step, seconds. A lost worker took 20 to 25 where it was measured (docs/results.md); a
# machine that has to come first takes minutes.
RESTART_S = 60.0


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    given = _options(arguments)
    recipe = _recipe(given)
    asked_accelerator(recipe, given.gpu, given.mfu)
    # Seconds of imports, and mistakes are told before them.
    from system.planning.capacity import Prices  # noqa: PLC0415
    from system.planning.making import Asked, plan_run  # noqa: PLC0415
    from system.planning.told import told  # noqa: PLC0415

    prices = Prices(given.price_gpu_hour, given.price_cpu_hour)
    restart_s = RESTART_S if given.restart_seconds is None else given.restart_seconds
    asked = Asked(given.gpu, given.mfu, given.seconds, given.margin, prices, given.preemptions_per_day, restart_s)
    recipe, index = _data(recipe)
    plan = plan_run(recipe, index, asked, say)
    say("\n".join(["", *told(plan)]))
    if given.json:
        Path(given.json).write_text(json.dumps(plan.as_dict(), indent=1) + "\n")
    if given.keep:
        say(f"kept for the run: {_keep(recipe, plan)}")
    return 0


def _options(arguments: Sequence[str]) -> Namespace:
    options = parser("plan", "What limits a run, how many machines it wants, its hours and costs; on your own videos.")
    recipe_arguments(options)
    options.add_argument("--index", help="index.parquet of the videos, in place of the recipe's data.uri")
    options.add_argument("--gpu", help=f"reckon for this GPU: {known()}; default: measure on the one here")
    options.add_argument("--mfu", type=_share, help="with --gpu: share of its peak that a step reaches; default 0.35")
    options.add_argument("--seconds", type=positive, default=30.0, help="for all measurements together")
    options.add_argument("--margin", type=amount, default=0.25, help="share of cores and actors to spare")
    options.add_argument("--price-gpu-hour", type=amount, metavar="PRICE", help="of one GPU, in any currency")
    options.add_argument("--price-cpu-hour", type=amount, metavar="PRICE", help="of one CPU core")
    options.add_argument("--preemptions-per-day", type=positive, metavar="N", help="of the whole run")
    options.add_argument(
        "--restart-seconds", type=amount, metavar="S", help=f"from one to the next step; default {RESTART_S:g}"
    )
    options.add_argument("--json", metavar="FILE", help="write all figures there")
    options.add_argument("--keep", action="store_true", help="into the run's folder: its end is compared with it")
    given = options.parse_intermixed_args(arguments)
    if given.restart_seconds is not None and given.preemptions_per_day is None:
        options.error("--restart-seconds says nothing without --preemptions-per-day")
    return given


def _share(text: str) -> float:
    value = positive(text)
    if value > 1:
        raise ArgumentTypeError(f"needs a share above 0 and at most 1, got {text}")
    return value


def _recipe(given: Namespace) -> Recipe:
    """Read the recipe, over the index that is named.

    Raises:
        RecipeError: if that and `data.uri` are both given, or it is not an index.
    """
    overrides = list(given.overrides)
    if given.index:
        if any(each.startswith("data.uri=") for each in overrides):
            raise RecipeError("--index and data.uri=... both say where the videos are; leave one out")
        if not given.index.endswith(".parquet"):
            raise RecipeError(
                f"--index={given.index} is no index.parquet; make one with `python -m jobs.index --data {given.index}`"
            )
        overrides.append(f"data.uri={given.index}")
    told: list[str] = []
    recipe = load_recipe(given.recipe, overrides, told=told)
    for line in told:
        say(line)
    if given.price_gpu_hour is not None and recipe.resources.use_gpu is False:
        raise RecipeError("--price-gpu-hour and resources.use_gpu=false contradict each other; leave one out")
    return recipe


def _data(recipe: Recipe) -> tuple[Recipe, str]:
    """Return the recipe with its classes, where it has some, and its index; of generated videos it is made.

    Raises:
        DataError: if there is none: making one of a bucket takes longer than a plan may.
    """
    from system.data.dataset import SYNTHETIC, ensure_index, ensure_labels, find_videos  # noqa: PLC0415

    if not recipe.data.uri.startswith(SYNTHETIC) and find_videos(recipe) is None:
        raise DataError(
            f"{recipe.data.uri} has no index; make one with `python -m jobs.index --data {recipe.data.uri}`, or name it"
            " with --index"
        )
    recipe = ensure_labels(recipe)
    return recipe, ensure_index(recipe)


def _keep(recipe: Recipe, plan: Plan) -> str:
    """Put a plan into the run's folder and return where it is."""
    from jobs.settled import settled  # noqa: PLC0415  Arrow's import
    from system.data.dataset import run_uri  # noqa: PLC0415
    from system.train.planned import write_plan  # noqa: PLC0415

    recipe = settled(recipe, say)  # as the run will compare it
    made = plan.as_dict()
    now = made["ways"][0]
    promise = {
        "clips_per_s": now["clips_per_s"],
        "limit": now["limit"],
        "hours": now["hours"],
        "clips": plan.clips,
        "worker": f"{now['units']['workers']} x {plan.worker}",
    }
    return write_plan(run_uri(recipe), recipe, promise, made)


if __name__ == "__main__":
    run(main)
