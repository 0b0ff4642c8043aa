"""Bring a public VQGAN into our form: `python -m jobs.import_tokenizer --weights last.ckpt --out vqgan.safetensors`.

Once for each checkpoint; a recipe's `method.tokenizer` then names the new file. docs/methods/tokenizers.md says where
the checkpoints are.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parser, run, say
from system import storage
from system.errors import WeightsError


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("import_tokenizer", "Write a VQGAN checkpoint of its authors as a tokenizer of this system.")
    options.add_argument("--weights", required=True, help="the .ckpt, .pth or .safetensors file, local or s3://")
    options.add_argument("--out", required=True, help="the .safetensors file to write, local or s3://")
    given = options.parse_args(arguments)
    if not given.out.endswith(".safetensors"):
        options.error(f"--out ends in .safetensors, got {given.out}")
    source, out = storage.absolute(given.weights), storage.absolute(given.out)
    if storage.exists(out):
        raise WeightsError(f"{out} is there already; name another --out, or delete it")
    from system.models.tokenizer_import import import_tokenizer  # noqa: PLC0415  mistyped arguments need no torch

    tokenizer = import_tokenizer(source, out)
    config = tokenizer.config
    weights = sum(param.numel() for param in tokenizer.parameters())
    say(f"{config.kind}: {config.num_codes} codes of {config.factor} px, {weights:,} weights")
    side = 14
    px = side * config.factor
    say(f"a frame of {side} x {side} codes is {px} x {px} px and costs {tokenizer.flops(side, side) / 1e9:.1f} GFLOP")
    say(f"written: {out}")
    return 0


if __name__ == "__main__":
    run(main)
