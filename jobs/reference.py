"""Measure what the loss of a recipe should be: `python -m jobs.reference --recipe FILE --seeds 0,1,2`.

Trains the recipe once for each seed, in this process and without Ray: a step's loss does not depend on how its batch is
shared out. The band goes into jobs/recipes/references.json, by which reports judge runs of the recipe (docs/report.md).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.cli import REFERENCES, parser, recipe_arguments, run, say
from system.benchmark.machine import describe
from system.data.assemble import StreamSpec, layout_for, local_blocks
from system.data.dataset import ensure_index, run_uri
from system.data.index import Index
from system.errors import RecipeError
from system.recipe import Recipe, load_recipe
from system.report.metric_lines import Values, read_lines
from system.report.reference import band_of
from system.train.schedule import schedule_of

# Where a band has its points, shares of the run.
AT = (1 / 12, 2 / 12, 4 / 12, 6 / 12, 8 / 12, 10 / 12, 1)
# As a reference is measured: one plain process, every step logged, nothing kept.
PLAIN = ("engine.name=torch", "telemetry.log_every_steps=1", "telemetry.tensorboard=false")


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("reference", "Measure the band of a recipe's loss over seeds, for the verdict of reports.")
    recipe_arguments(options)
    options.add_argument("--seeds", default="0,1,2", help="of the runs, with commas between; default 0,1,2")
    options.add_argument("--name", help="of the band; default that of the recipe's file")
    options.add_argument("--out", default=str(REFERENCES), help="references.json beside the recipe that it names")
    given = options.parse_intermixed_args(arguments)
    path, out = Path(given.recipe), Path(given.out)
    seeds = seeds_of(given.seeds)
    if path.resolve().parent != out.resolve().parent:
        options.error(
            f"--out lies beside the recipe, in {path.parent}, and reports read {REFERENCES} alone: copy the recipe"
            f" there; got {out}"
        )
    bands_in(out)  # one that cannot be read is told before the hours of training
    curves = []
    with tempfile.TemporaryDirectory(prefix="tubelet-reference-") as folder:
        for seed in seeds:
            place = [f"run.seed={seed}", f"run.name=seed-{seed}", f"run.storage={folder}"]
            recipe = load_recipe(path, [*given.overrides, *PLAIN, *place])
            curves.append(trained(recipe))
            say(f"seed {seed}: loss {curves[-1][1][:5].mean():.4f} -> {curves[-1][1][-5:].mean():.4f}")
    steps = len(curves[0][0])
    at = sorted({round(share * steps) for share in AT} - {0})
    machine = describe(device=False)
    about = f"seeds {', '.join(map(str, seeds))} of {path.name}, torch {machine['packages']['torch']}"
    band = {"recipe": path.stem, "overrides": list(given.overrides), "about": about, "points": band_of(curves, at)}
    known = {**bands_in(out), given.name or path.stem: band}
    out.write_text(json.dumps(known, indent=1) + "\n")
    say(f"{len(at)} points of {given.name or path.stem}: {out}")
    return 0


def bands_in(place: Path) -> dict[str, Any]:
    """Return the bands that a file holds, by their names; none of one that is not there.

    Raises:
        RecipeError: if it holds something else.
    """
    try:
        known = json.loads(place.read_text()) if place.exists() else {}
    except ValueError as error:
        raise RecipeError(f"{place} is no JSON: {error}; mend it, or name another --out") from error
    if not isinstance(known, dict):
        raise RecipeError(f"{place} holds bands by their names, got a {type(known).__name__}; name another --out")
    return known


def seeds_of(text: str) -> list[int]:
    """Read seeds with commas between.

    Raises:
        RecipeError: if they are no numbers, or one alone: a band needs several.
    """
    try:
        seeds = sorted({int(each) for each in text.split(",")})
    except ValueError as error:
        raise RecipeError(f"--seeds are whole numbers with commas between, such as 0,1,2; got {text}") from error
    if len(seeds) < 2:
        raise RecipeError(f"a band needs two seeds or more, got --seeds {text}")
    return seeds


def trained(recipe: Recipe) -> tuple[Values, Values]:
    """Train a recipe to its end and return its steps and losses."""
    from system.train.session import train_rank  # noqa: PLC0415  torch, when the arguments are right

    index_uri = ensure_index(recipe)
    spec = StreamSpec(recipe, index_uri, layout_for(recipe, 1), schedule_of(recipe, Index(index_uri).num_videos).total)
    train_rank(recipe, index_uri, 0, lambda: local_blocks(spec, 0, 0))
    metrics = read_lines(Path(run_uri(recipe), "metrics.jsonl").read_text().splitlines())
    return metrics["step"], metrics["loss"]


if __name__ == "__main__":
    run(main)
