"""What `pretrain` and `finetune` are: a recipe and its overrides, shown, or carried out to the end."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import STOPPED, parser, recipe_arguments, say
from system.errors import RecipeError
from system.recipe import Recipe, dump_recipe, load_recipe


def carry_out(arguments: Sequence[str], job: str, what: str) -> int:
    """Run a job that trains, and return its exit code.

    Args:
        arguments: of its command line.
        job: its name, as `Recipe.job`.
        what: it does, for --help.

    Raises:
        RecipeError: if the recipe is for another job.
    """
    options = parser(job, f"{what}; the same command again resumes the run.")
    recipe_arguments(options)
    options.add_argument("--show", action="store_true", help="print the resolved recipe and stop")
    options.add_argument("--no-preflight", action="store_true", help="skip the checks before machines are asked for")
    options.add_argument("--address", help="Ray cluster; `local` starts one here; default RAY_ADDRESS, then local")
    options.add_argument("--verbose", action="store_true", help="show what the cluster's processes print")
    options.add_argument("--takeover", action="store_true", help="take the run from the job that holds it")
    given = options.parse_intermixed_args(arguments)
    told: list[str] = []
    recipe = load_recipe(given.recipe, given.overrides, told=told)
    if recipe.job != job:
        raise RecipeError(
            f"{given.recipe} has method.name={recipe.method.name}, which python -m jobs.{recipe.job} carries out, not"
            f" jobs.{job}"
        )
    for line in told:
        say(line)
    if given.show:
        print(dump_recipe(recipe) + derived(recipe), end="")
        return 0
    return train(
        recipe,
        address=given.address,
        preflight=not given.no_preflight,
        verbose=given.verbose,
        takeover=given.takeover,
    )


def derived(recipe: Recipe) -> str:
    """Say what follows from a recipe, as comments of its YAML."""
    peak, final = recipe.learning_rates()
    hidden = recipe.grid.tokens - recipe.record.num_visible(recipe.method, recipe.grid)
    seen = f"of which {hidden} are hidden" if hidden else "all of them seen"
    lowest = recipe.lr_scale("encoder.patch_embed.proj.weight")
    decay = f"; {peak * lowest:.4g} of the embedding, by layer decay" if lowest != 1 else ""
    lines = [
        f"learning rate: {peak:.4g} at most, {final:.4g} at last{decay}",
        f"tokens of a clip: {recipe.grid.tokens}, {seen}",
        f"videos of a step: {recipe.slots_per_step}, {recipe.data.views} clips of each",
    ]
    return "".join(f"# {line}\n" for line in lines)


def train(
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
