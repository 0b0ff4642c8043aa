"""Pre-train a video transformer: `python -m jobs.pretrain --recipe jobs/recipes/smoke.yaml section.field=value ...`.

The run's name and storage are its identity: the same command again resumes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import STOPPED, parser, recipe_arguments, run, say
from system.recipe import Recipe, dump_recipe, load_recipe


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("pretrain", "Pre-train a video transformer; the same command again resumes the run.")
    recipe_arguments(options)
    options.add_argument("--show", action="store_true", help="print the resolved recipe and stop")
    options.add_argument("--no-preflight", action="store_true", help="skip the checks before machines are asked for")
    options.add_argument("--address", help="Ray cluster; `local` starts one here; default RAY_ADDRESS, then local")
    options.add_argument("--verbose", action="store_true", help="show what the cluster's processes print")
    options.add_argument("--takeover", action="store_true", help="take the run from the job that holds it")
    given = options.parse_intermixed_args(arguments)
    told: list[str] = []
    recipe = load_recipe(given.recipe, given.overrides, told=told)
    for line in told:
        say(line)
    if given.show:
        print(dump_recipe(recipe) + _derived(recipe), end="")
        return 0
    return pretrain(
        recipe,
        address=given.address,
        preflight=not given.no_preflight,
        verbose=given.verbose,
        takeover=given.takeover,
    )


def _derived(recipe: Recipe) -> str:
    """Say what follows from a recipe, as comments of its YAML."""
    peak, final = recipe.learning_rates()
    hidden = recipe.grid.tokens - recipe.record.num_visible(recipe.method, recipe.grid)
    lines = [
        f"learning rate: {peak:.4g} at most, {final:.4g} at last",
        f"tokens of a clip: {recipe.grid.tokens}, of which {hidden} are hidden",
        f"videos of a step: {recipe.slots_per_step}, {recipe.data.views} clips of each",
    ]
    return "".join(f"# {line}\n" for line in lines)


def pretrain(
    recipe: Recipe,
    *,
    address: str | None = None,
    preflight: bool = True,
    verbose: bool = False,
    takeover: bool = False,
) -> int:
    """Start or resume a run, say how it ended, and return the exit code."""
    from jobs.running import run_to_end  # noqa: PLC0415  a laptop shows recipes without torch and ray

    summary = run_to_end(recipe, address=address, preflight=preflight, verbose=verbose, takeover=takeover)
    return STOPPED if summary["told_to_stop"] else 0


if __name__ == "__main__":
    run(main)
