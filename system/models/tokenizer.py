"""Frozen tokenizers: images to a grid of discrete codes, the labels of a method that predicts codes.

Three kinds. `vqgan`: the VQGANs of Esser et al. (arXiv:2012.09841) with a code-book that the nearest entry is taken
from. `gumbel`: their VQGAN whose codes are the largest of a convolution's outputs; where theirs draws Gumbel noise even
in evaluation, codes here are the plain argmax, so that an image has one label. `small`: ours, fitted to a run's own
videos (fit_tokenizer.py). Module names are those of the authors' checkpoints. tokenizer_file.py reads and writes.

B images of H x W px, h x w codes, K codes of the book, C channels of a code's vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from system.models.small_vq import SmallDecoder, SmallEncoder
from system.models.vqgan import VQGANDecoder, VQGANEncoder

# Images are encoded so many pixels at a time: 32 of 224 x 224, whose first stage is 0.8 GB in float32.
CHUNK_PIXELS = 32 * 224 * 224


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """What a tokenizer is built from.

    Attributes:
        kind: `vqgan`, `gumbel` or `small`.
        num_codes: K.
        factor: image px of one code's side, 8 or 16.
        width: channels of the first convolution.
        latent_width: channels between encoder and `quant_conv`.
        code_width: C.
        decoder: whether codes can be turned back into images.
    """

    kind: Literal["vqgan", "gumbel", "small"]
    num_codes: int
    factor: int
    width: int = 128
    latent_width: int = 256
    code_width: int = 256
    decoder: bool = True


# The three that are known to be public, by the names of their authors.
PUBLIC = {
    "vqgan_imagenet_f16_1024": TokenizerConfig("vqgan", 1024, 16),
    "vqgan_imagenet_f16_16384": TokenizerConfig("vqgan", 16384, 16),
    "vqgan_gumbel_f8": TokenizerConfig("gumbel", 8192, 8),
}


class Codebook(nn.Module):
    """K vectors; the code of a latent is the nearest one's index (L2)."""

    def __init__(self, num_codes: int, code_width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_codes, code_width)

    def indices(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, h, w) int64."""
        book = self.embedding.weight.float()
        # |z - e|^2 without |z|^2, which is the same for all codes.
        distance = book.square().sum(1) - 2 * latents.float().permute(0, 2, 3, 1) @ book.T
        return distance.argmin(-1)

    def vectors(self, codes: Tensor) -> Tensor:
        """(B, h, w) -> (B, C, h, w)."""
        out: Tensor = self.embedding(codes)
        return out.permute(0, 3, 1, 2)


class GumbelCodebook(nn.Module):
    """A 1x1 convolution scores K codes; the code of a latent is the best one's index, without noise."""

    def __init__(self, num_codes: int, code_width: int, latent_width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(latent_width, num_codes, 1)
        self.embed = nn.Embedding(num_codes, code_width)

    def indices(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, h, w) int64."""
        scores: Tensor = self.proj(latents.float())
        return scores.argmax(1)

    def vectors(self, codes: Tensor) -> Tensor:
        """(B, h, w) -> (B, C, h, w)."""
        out: Tensor = self.embed(codes)
        return out.permute(0, 3, 1, 2)


class Tokenizer(nn.Module):
    """Images to codes and, where there is a decoder, back. Frozen: always in eval mode, and nothing wants a gradient."""

    quantize: Codebook | GumbelCodebook

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        towers = (SmallEncoder, SmallDecoder) if config.kind == "small" else (VQGANEncoder, VQGANDecoder)
        size = (config.factor, config.width, config.latent_width)
        self.encoder: nn.Module = towers[0](*size)
        self.quant_conv = nn.Conv2d(config.latent_width, config.code_width, 1)
        if config.kind == "gumbel":
            self.quantize = GumbelCodebook(config.num_codes, config.code_width, config.latent_width)
        else:
            self.quantize = Codebook(config.num_codes, config.code_width)
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

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002  frozen, whatever the model around it does
        """Stay in eval mode."""
        return super().train(False)

    def latents(self, images: Tensor) -> Tensor:
        """Encode images before quantisation: (B, 3, H, W) in [0, 1] -> (B, C, h, w)."""
        out: Tensor = self.quant_conv(self.encoder(images * 2 - 1))
        return out

    @torch.no_grad()
    def codes(self, images: Tensor, rows: int, cols: int) -> Tensor:
        """Give every place of a grid its code.

        The encoder computes in the precision around it (bf16 autocast is much faster and moves some codes); the choice
        of a code is float32.

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
        return torch.cat([self._codes(part, size) for part in images.split(each)])

    def _codes(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        if images.shape[-2:] != size:
            images = F.interpolate(images.float(), size, mode="bilinear", antialias=True).clamp(0, 1)
        latents = self.latents(images)
        with torch.autocast(latents.device.type, enabled=False):
            return self.quantize.indices(latents)

    def decode(self, vectors: Tensor) -> Tensor:
        """Decode codes' vectors: (B, C, h, w) -> (B, 3, H, W), about [0, 1] and not cut.

        Raises:
            ValueError: if the tokenizer was made without a decoder.
        """
        if self.decoder is None:
            raise ValueError("this tokenizer has no decoder: its file was written without one")
        out: Tensor = self.decoder(self.post_quant_conv(vectors))
        return (out + 1) / 2

    @torch.no_grad()
    def pixels(self, codes: Tensor) -> Tensor:
        """Turn codes into images: (B, rows, cols) int64 -> (B, 3, rows * factor, cols * factor) in [0, 1].

        Raises:
            ValueError: if the tokenizer was made without a decoder.
        """
        return self.decode(self.quantize.vectors(codes)).clamp(0, 1)

    def flops(self, rows: int, cols: int) -> int:
        """Count the operations (2 per multiply-add) that the codes of one image of a grid take."""
        return tokenizer_flops(self.config, rows, cols)


@lru_cache(maxsize=64)
def tokenizer_flops(config: TokenizerConfig, rows: int, cols: int) -> int:
    """Count the operations (2 per multiply-add) of one image's codes; PyTorch counts, on a device without values."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = Tokenizer(replace(config, decoder=False))
        network.quantize.indices(network.latents(torch.empty(1, 3, rows * config.factor, cols * config.factor)))
    return int(counter.get_total_flops())
