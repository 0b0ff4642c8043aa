"""The main job in its smallest form: `make demo`, or `make demo VIDEOS=/path/or/s3://bucket/prefix`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from jobs.cli import parser, run
from jobs.training import train
from system.recipe import load_recipe

RECIPE = Path(__file__).parent / "recipes" / "smoke.yaml"


def main(arguments: Sequence[str]) -> int:
    """Run the demo."""
    options = parser("demo", "Pre-train on 64 generated videos, or on your own, in a few minutes on two cores.")
    options.add_argument("--videos", help="folder or s3:// prefix of videos")
    options.add_argument("overrides", nargs="*", metavar="section.field=value", help="laid over the smoke recipe")
    given = options.parse_intermixed_args(arguments)
    overrides = ["run.name=demo"]
    if given.videos:
        digest = hashlib.sha256(given.videos.encode()).hexdigest()[:8]
        overrides = [f"run.name=demo-{digest}", f"data.uri={given.videos}"]
    return train(load_recipe(RECIPE, [*overrides, *given.overrides]), address="local")


if __name__ == "__main__":
    run(main)
