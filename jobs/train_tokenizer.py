"""Fit a small tokenizer to one's own videos: `python -m jobs.train_tokenizer --recipe FILE --out FILE.safetensors`.

A run with `method.tokenizer: auto` does this by itself, with few steps. This job is for one that is shared by runs, or
better.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from jobs.cli import parser, recipe_arguments, run, say
from system import storage
from system.recipe import load_recipe


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("train_tokenizer", "Fit a small tokenizer to the videos of a recipe.")
    recipe_arguments(options)
    options.add_argument("--out", required=True, help="the .safetensors file to write, local or s3://")
    options.add_argument("--codes", type=int, default=512, help="size of the code-book; default 512")
    options.add_argument("--factor", type=int, choices=(8, 16), default=16, help="a code stands for so many px squared")
    options.add_argument("--width", type=int, default=96, help="channels of encoder and decoder; default 96")
    options.add_argument("--steps", type=int, default=1000, help="optimizer steps of 64 crops; default 1000")
    options.add_argument("--images", type=int, default=2048, help="frames to fit it to, at most; default 2048")
    options.add_argument("--device", default="cpu", help="where to compute: cpu (default) or cuda")
    given = options.parse_intermixed_args(arguments)
    if not given.out.endswith(".safetensors"):
        options.error(f"--out ends in .safetensors, got {given.out}")
    if min(given.steps, given.images, given.width) < 2:
        options.error("--steps, --images and --width are 2 at least")
    recipe = load_recipe(given.recipe, given.overrides)
    from system.data.dataset import ensure_index  # noqa: PLC0415  a mistyped recipe is told without waiting for torch
    from system.models.fit_tokenizer import FitOptions  # noqa: PLC0415
    from system.train.own_tokenizer import fit_from_videos  # noqa: PLC0415

    try:
        how = FitOptions(num_codes=given.codes, factor=given.factor, width=given.width, steps=given.steps)
    except ValueError as error:
        options.error(str(error))
    out = storage.absolute(given.out)
    storage.check_writable(out)
    index_uri = ensure_index(recipe, workers=os.cpu_count() or 2, say=say)
    fit_from_videos(recipe, index_uri, out, say, options=how, num_images=given.images, device=given.device)
    return 0


if __name__ == "__main__":
    run(main)
