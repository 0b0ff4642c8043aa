"""Bring released weights into our form: `python -m jobs.import_weights --weights FILE.pth --out FILE.safetensors`.

Reads `.pth` files of VideoMAE, VideoMAE V2 and MGMAE, Hugging Face's folders and files, and checkpoints of runs. With
`--recipe` it also checks that they fit that recipe's model. A run can start from any of them directly, without this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jobs.cli import parser, run, say
from system import storage
from system.errors import WeightsError
from system.models.fit import part_of
from system.models.weight_files import our_metadata, write_weights
from system.models.weights import Tensors, sizes_of
from system.recipe import load_recipe
from system.train.warm_start import check_fit, read_any


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("import_weights", "Write released weights as safetensors in our naming.")
    options.add_argument("--weights", required=True, help="file, folder or checkpoint, local or s3://")
    options.add_argument("--out", required=True, help="the .safetensors file to write, local or s3://")
    options.add_argument("--encoder-only", action="store_true", help="leave decoder and heads out")
    options.add_argument("--recipe", help="check that they fit this recipe's model")
    options.add_argument("overrides", nargs="*", metavar="section.field=value", help="laid over the recipe")
    given = options.parse_intermixed_args(arguments)
    if given.overrides and not given.recipe:
        options.error(f"{given.overrides[0]} changes a recipe, and no --recipe is given")
    if not given.out.endswith(".safetensors"):
        options.error(f"--out ends in .safetensors, got {given.out}")
    out, source = storage.absolute(given.out), storage.absolute(given.weights)
    if storage.exists(out):
        raise WeightsError(f"{out} is there already; name another --out, or delete it")
    weights = read_any(source)
    if given.encoder_only:
        encoder = {name: value for name, value in weights.tensors.items() if part_of(name) == "encoder"}
        weights = replace(weights, tensors=encoder)
    say(f"{weights.kind}: {sizes_of(weights.tensors, source)}, {len(weights.tensors)} tensors")
    if _biases_lost(weights.tensors):
        say("all query and value biases are zero: were they lost on the way, as some releases of transformers 5 do?")
    if given.recipe:
        say(f"fits {given.recipe}: {check_fit(load_recipe(given.recipe, given.overrides), weights)}")
    write_weights(out, weights.tensors, our_metadata(weights.heads, source=weights.uri))
    say(f"written: {out}")
    return 0


def _biases_lost(tensors: Tensors) -> bool:
    """Say whether every query and value bias is zero, as of no model that was trained."""
    biases = [value for name, value in tensors.items() if name.endswith(("q_bias", "v_bias"))]
    return bool(biases) and not any(bool(value.any()) for value in biases)


if __name__ == "__main__":
    run(main)
