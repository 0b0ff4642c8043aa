"""The authors' VQGAN checkpoints, once, to a tokenizer file of ours.

Which network a file holds follows from its names and shapes. A pickle is opened in a process of its own (pickles.py),
which hands over nothing but tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from system.errors import WeightsError
from system.models.tokenizer import Tokenizer, TokenizerConfig, build_tokenizer, save_tokenizer
from system.models.vqgan import factor_of
from system.models.weight_files import read_tensors

# What a training checkpoint holds besides: the perceptual loss and the discriminator.
IGNORED = "loss."


def import_tokenizer(source: str, out: str) -> Tokenizer:
    """Bring a VQGAN checkpoint into our form.

    Args:
        source: URI of a Lightning `.ckpt`, a plain state dict, or a safetensors file with the authors' names.
        out: URI of the tokenizer file to write. Nothing is written unless every weight is there and fits.

    Returns:
        The tokenizer.

    Raises:
        WeightsError: if the file is missing, damaged, needs to run code, or holds another network.
        StorageFault: if storage does not answer.
    """
    tensors = {name: value for name, value in read_tensors(source)[0].items() if not name.startswith(IGNORED)}
    tokenizer = build_tokenizer(config_of(tensors, source), tensors, source)
    save_tokenizer(tokenizer, out)
    return tokenizer


def config_of(tensors: Mapping[str, Tensor], where: str) -> TokenizerConfig:
    """Say which network has these weights.

    Raises:
        WeightsError: if it is none that is supported.
    """
    gumbel = "quantize.proj.weight" in tensors
    book = tensors.get("quantize.embed.weight" if gumbel else "quantize.embedding.weight")
    first, last = tensors.get("encoder.conv_in.weight"), tensors.get("encoder.conv_out.weight")
    stages = {name.split(".")[2] for name in tensors if name.startswith("encoder.down.")}
    factor = factor_of(len(stages))
    if book is None or first is None or last is None or book.ndim != 2 or first.ndim != 4 or last.ndim != 4:
        shown = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise WeightsError(
            f"{where} is no VQGAN: encoder.conv_in.weight, encoder.conv_out.weight and quantize.embedding.weight (or,"
            f" for Gumbel, quantize.embed.weight) are wanted, it has {shown}"
        )
    if factor is None:
        raise WeightsError(
            f"{where}: its encoder has {len(stages)} stages; those with 4 (a code for 8 px) and 5 (16 px) are supported"
        )
    return TokenizerConfig(
        kind="gumbel" if gumbel else "vqgan",
        num_codes=len(book),
        factor=8 if factor == 8 else 16,
        width=len(first),
        latent_width=len(last),
        code_width=book.shape[1],
        decoder=any(name.startswith("decoder.") for name in tensors),
    )
