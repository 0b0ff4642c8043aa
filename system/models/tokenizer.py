"""Frozen tokenizers: images to a grid of discrete codes, the labels of a method that predicts codes.

Three kinds. `vqgan` and `gumbel`: the networks of Esser et al. (arXiv:2012.09841), with a code-book that the nearest
entry is taken from, or with a convolution whose largest output is the code. `small`: ours, fitted to a run's own videos
(fit_tokenizer.py). Module names are those of the authors' checkpoints (tokenizer_import.py).

B images of H x W px, h x w codes, K codes of the book, C channels of a code's vector.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from system import storage
from system.errors import WeightsError
from system.models.codebooks import Codebook, GumbelCodebook
from system.models.small_vq import SmallDecoder, SmallEncoder
from system.models.vqgan import VQGANDecoder, VQGANEncoder
from system.section import Positive, Section

# Images are encoded so many pixels at a time: 32 of 224 x 224, whose first stage is 0.8 GB in float32.
CHUNK_PIXELS = 32 * 224 * 224
# Of a file's metadata: what it is, and its TokenizerConfig as JSON.
FORMAT, CONFIG = "tubelet-tokenizer", "tokenizer"


class TokenizerConfig(Section):
    """What a tokenizer is built from; its defaults are the widths of the public VQGANs.

    Attributes:
        kind: of network and code-book.
        num_codes: K.
        factor: image px of one code's side.
        width: channels of the first convolution.
        latent_width: channels between encoder and `quant_conv`.
        code_width: C.
        decoder: whether codes can be turned back into images.
    """

    kind: Literal["vqgan", "gumbel", "small"]
    num_codes: Positive
    factor: Literal[8, 16]
    width: Positive = 128
    latent_width: Positive = 256
    code_width: Positive = 256
    decoder: bool = True


class Tokenizer(nn.Module):
    """Images to codes and, where there is a decoder, back. Frozen: always in eval mode, nothing wants a gradient."""

    quantize: Codebook | GumbelCodebook

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        towers = (SmallEncoder, SmallDecoder) if config.kind == "small" else (VQGANEncoder, VQGANDecoder)
        size = (config.factor, config.width, config.latent_width)
        self.encoder: nn.Module = towers[0](*size)
        self.quant_conv = nn.Conv2d(config.latent_width, config.code_width, 1)
        book = GumbelCodebook if config.kind == "gumbel" else Codebook
        self.quantize = book(config.num_codes, config.code_width)
        self.decoder: nn.Module | None = None
        if config.decoder:
            self.post_quant_conv = nn.Conv2d(config.code_width, config.latent_width, 1)
            self.decoder = towers[1](*size)
        self.requires_grad_(False)
        self.eval()

    @property
    def num_codes(self) -> int:
        """K."""
        return self.config.num_codes

    @property
    def factor(self) -> int:
        """Image px of one code's side."""
        return self.config.factor

    def train(self, _mode: bool = True) -> Self:
        """Stay in eval mode, whatever the model around it does."""
        return super().train(False)

    def latents(self, images: Tensor) -> Tensor:
        """Encode images before quantisation: (B, 3, H, W) in [0, 1] -> (B, C, h, w)."""
        out: Tensor = self.quant_conv(self.encoder(images * 2 - 1))
        return out

    @torch.no_grad()
    def codes(self, images: Tensor, rows: int, cols: int) -> Tensor:
        """Give every place of a grid its code.

        The encoder computes in the precision around it (bf16 autocast is faster and moves some codes); the choice of a
        code is float32.

        Args:
            images: (B, 3, H, W) float in [0, 1]; scaled to (rows * factor, cols * factor) px if they are of another
                size, bilinear with antialiasing.
            rows: of the grid.
            cols: of the grid.

        Returns:
            (B, rows, cols) int64 in [0, K).
        """
        size = (rows * self.factor, cols * self.factor)
        each = max(1, CHUNK_PIXELS // (size[0] * size[1]))
        return torch.cat([self._codes(part, size) for part in torch.split(images, each)])

    def _codes(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        if images.shape[-2:] != size:
            images = F.interpolate(images.float(), size, mode="bilinear", antialias=True).clamp(0, 1)
        latents = self.latents(images)
        with torch.autocast(latents.device.type, enabled=False):
            return self.quantize.indices(latents)

    def decode(self, vectors: Tensor) -> Tensor:
        """Decode codes' vectors: (B, C, h, w) -> (B, 3, H, W), about [0, 1] and not cut.

        Raises:
            WeightsError: if the tokenizer has no decoder.
        """
        if self.decoder is None:
            raise WeightsError("this tokenizer has no decoder, so its codes cannot be shown as images")
        out: Tensor = self.decoder(self.post_quant_conv(vectors))
        return (out + 1) / 2

    @torch.no_grad()
    def pixels(self, codes: Tensor) -> Tensor:
        """Turn codes into images: (B, rows, cols) int64 -> (B, 3, rows * factor, cols * factor) in [0, 1].

        Raises:
            WeightsError: if the tokenizer has no decoder.
        """
        return self.decode(self.quantize.vectors(codes)).clamp(0, 1)

    def flops(self, rows: int, cols: int) -> int:
        """Count the operations (2 per multiply-add) that the codes of one image of a grid take."""
        return tokenizer_flops(self.config, rows, cols)


@lru_cache(maxsize=64)
def tokenizer_flops(config: TokenizerConfig, rows: int, cols: int) -> int:
    """Count the operations (2 per multiply-add) of one image's codes; PyTorch counts, on a device without values."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = Tokenizer(config.model_copy(update={"decoder": False}))
        network.quantize.indices(network.latents(torch.empty(1, 3, rows * config.factor, cols * config.factor)))
    return int(counter.get_total_flops())


def build_tokenizer(config: TokenizerConfig, tensors: Mapping[str, Tensor], where: str) -> Tokenizer:
    """Build a tokenizer with given weights, on the CPU in float32.

    Args:
        config: of the network.
        tensors: every weight by name, and no others.
        where: they come from, for messages.

    Raises:
        WeightsError: names the weights that are missing, belong to no such tokenizer or have another shape.
    """
    with torch.device("meta"):
        tokenizer = Tokenizer(config)
    own = {name: tuple(value.shape) for name, value in tokenizer.state_dict().items()}
    shapes = {name: (own[name], tuple(tensors[name].shape)) for name in own.keys() & tensors.keys()}
    problems = [
        _few("missing", own.keys() - tensors.keys()),
        _few("of no such tokenizer", tensors.keys() - own.keys()),
        _few(
            "of another shape",
            {f"{name} is {got}, not {wanted}" for name, (wanted, got) in shapes.items() if got != wanted},
        ),
    ]
    if any(problems):
        kind = f"{config.kind} tokenizer with {config.num_codes} codes of {config.factor} px"
        raise WeightsError(f"{where} is no {kind}: " + "; ".join(filter(None, problems)))
    tokenizer.load_state_dict({name: value.float().contiguous() for name, value in tensors.items()}, assign=True)
    return tokenizer.requires_grad_(False)


def _few(what: str, names: set[str]) -> str:
    """Describe a set of names by its size and its first members; empty if there are none."""
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:4])
    return f"{len(names)} {what} ({shown}{', ...' if len(names) > 4 else ''})"


def save_tokenizer(tokenizer: Tokenizer, uri: str) -> None:
    """Write a tokenizer as one safetensors file that says what it is."""
    tensors = {name: value.cpu().contiguous() for name, value in tokenizer.state_dict().items()}
    storage.write(uri, save(tensors, {"format": FORMAT, CONFIG: tokenizer.config.model_dump_json()}))


def load_tokenizer(uri: str) -> Tokenizer:
    """Read a tokenizer that `save_tokenizer` wrote.

    Raises:
        WeightsError: if there is no such file, it is damaged, is no tokenizer of ours, or its weights do not fit.
        StorageFault: if storage does not answer.
    """
    try:
        data = storage.read(uri)
    except storage.MissingError as error:
        raise WeightsError(
            f"{uri}: there is no such file; jobs.train_tokenizer fits a tokenizer, jobs.import_tokenizer brings one"
        ) from error
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
        tensors = load(data)
    except (SafetensorError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{uri} is damaged, cut off, or no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{uri} is no tokenizer that this system wrote; python -m jobs.import_tokenizer makes one of a VQGAN"
        )
    try:
        config = TokenizerConfig.model_validate_json(metadata.get(CONFIG, ""))
    except ValidationError as error:
        raise WeightsError(f"{uri} was written by another version: {' '.join(str(error).split())[:200]}") from error
    return build_tokenizer(config, tensors, uri)
