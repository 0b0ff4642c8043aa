"""Fitting a small tokenizer to images: an autoencoder first, then a code-book between its halves.

The first part of the steps trains encoder and decoder without codes. Then the book is set to the means of a few rounds
of k-means over latents, and the rest trains with codes: the nearest vector forward, the gradient straight through it
(van den Oord et al., 2017, arXiv:1711.00937), the book as a moving average of the latents that it is given, and codes
that are no longer used set to latents of the batch. So a book neither starts nor ends collapsed.

B images, K codes, C channels of a code's vector, M latents of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from system.core.codes import code_histogram, perplexity
from system.core.schedules import lr_at
from system.core.seeds import Purpose, generator
from system.models.codebooks import Codebook
from system.models.tokenizer import Tokenizer, TokenizerConfig

FACTORS = (8, 16)
# A step holds (latents, codes) float32: 1 GB for 32,768 latents and this many.
MAX_CODES = 8192
# Images kept at most, in bytes: 3,400 of 224 x 224.
POOL_BYTES = 1 << 29
# One image in so many is held out, and they are the last ones, so of other videos.
HELD_OUT_OF = 8
# Share of the steps before there are codes.
WITHOUT_CODES = 0.3
KMEANS_ROUNDS, KMEANS_LATENTS = 10, 8192
# Share of the old vector that a step of the book keeps.
DECAY = 0.97
# A code with a moving average of fewer latents than this share of an even one's is set to a latent of the batch.
DEAD = 0.03
COMMITMENT = 0.25


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a tokenizer is fitted.

    Attributes:
        num_codes: K.
        factor: image px of one code's side, 8 or 16.
        width: channels of encoder and decoder.
        code_width: C.
        steps: optimizer steps.
        batch: images of a step.
        crop_codes: side of the random crops that a step is trained on, in codes.
        lr: highest learning rate.
    """

    num_codes: int = 512
    factor: int = 16
    width: int = 96
    code_width: int = 8
    steps: int = 300
    batch: int = 64
    crop_codes: int = 4
    lr: float = 2e-3

    def __post_init__(self) -> None:
        if self.factor not in FACTORS:
            raise ValueError(f"a code stands for a square of 8 or 16 px, got factor={self.factor}")
        if not 2 <= self.num_codes <= MAX_CODES:
            raise ValueError(f"a book of 2 to {MAX_CODES} codes can be fitted, got num_codes={self.num_codes}")

    @property
    def config(self) -> TokenizerConfig:
        """What the tokenizer is built from."""
        return TokenizerConfig(
            kind="small",
            num_codes=self.num_codes,
            factor=8 if self.factor == 8 else 16,
            width=self.width,
            latent_width=self.width,
            code_width=self.code_width,
        )


@dataclass(frozen=True, slots=True)
class FitReport:
    """How good a tokenizer is on some images.

    Attributes:
        error: mean squared error of its reconstructions, of pixels in [0, 1].
        mean_colour_error: the same where each image is painted with its own mean colour.
        perplexity: of their codes. Bounded by what they show: few videos held out have few different patches.
        num_codes: K.
        num_images: that were looked at.
    """

    error: float
    mean_colour_error: float
    perplexity: float
    num_codes: int
    num_images: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """A tokenizer, and reports of it on images held out and on as many that it was fitted to."""

    tokenizer: Tokenizer
    held_out: FitReport
    fitted: FitReport


def fit_tokenizer(
    images: Iterable[Tensor], options: FitOptions, seed: int, device: torch.device | str = "cpu"
) -> Fitted:
    """Fit a small tokenizer to images; the same images, options and seed give the same one on the same machine.

    Args:
        images: batches of (B, 3, H, W) uint8, or float in [0, 1]; all of one size. Read until the pool is full.
        options: how.
        seed: 0 <= seed < 2**63.
        device: to compute on.

    Returns:
        The tokenizer, on the CPU, and how good it is on images that it was fitted to and on those held out.

    Raises:
        ValueError: if there are no two images, or they are smaller than a code.
    """
    pool = _pool(images, options.factor)
    held_out = max(1, len(pool) // HELD_OUT_OF)
    own, others = pool[:-held_out], pool[-held_out:]
    draw = generator(seed, Purpose.TOKENIZER)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(draw.integers(2**63)))
        tokenizer = Tokenizer(options.config)
        fit = _Fit(tokenizer.to(device), options)
        for step in range(options.steps):
            fit.step(step, _crops(own, options).to(device))
    tokenizer.requires_grad_(False).cpu()
    # Of the images that it was fitted to, as many and from as many videos.
    like = own[:: max(1, len(own) // held_out)][:held_out]
    return Fitted(tokenizer, judge(tokenizer, others), judge(tokenizer, like))


def judge(tokenizer: Tokenizer, images: Tensor) -> FitReport:
    """Measure a tokenizer that has a decoder on (B, 3, H, W) uint8 images whose sides are multiples of its factor."""
    rows, cols = (side // tokenizer.factor for side in images.shape[-2:])
    histogram = torch.zeros(tokenizer.num_codes, dtype=torch.int64)
    error = mean_error = 0.0
    for part in torch.split(images, 256):
        wanted = _unit(part)
        codes = tokenizer.codes(wanted, rows, cols)
        histogram += code_histogram(codes, tokenizer.num_codes)
        error += float(F.mse_loss(tokenizer.pixels(codes), wanted)) * len(part) / len(images)
        mean_error += float(wanted.var((2, 3), correction=0).mean()) * len(part) / len(images)
    return FitReport(error, mean_error, perplexity(histogram), tokenizer.num_codes, len(images))


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _pool(images: Iterable[Tensor], factor: int) -> Tensor:
    """Collect images as (B, 3, H, W) uint8, cut at the right and bottom to whole codes."""
    parts: list[Tensor] = []
    room = POOL_BYTES
    for batch in images:
        part = batch if batch.dtype == torch.uint8 else (batch * 255).round().byte()
        height, width = (side // factor * factor for side in part.shape[-2:])
        parts.append(part[..., :height, :width].contiguous())
        room -= parts[-1].numel()
        if room <= 0:
            break
    pool = torch.cat(parts) if parts else torch.empty(0, 3, factor, factor, dtype=torch.uint8)
    if len(pool) < 2 or not pool[0].numel():
        raise ValueError(
            f"a tokenizer of factor {factor} needs two images of at least {factor} px, got {tuple(pool.shape)}"
        )
    return pool


def _crops(pool: Tensor, options: FitOptions) -> Tensor:
    """Draw a batch of crops, from the global generator: (batch, 3, crop, crop) in [0, 1], mirrored half of the time."""
    chosen = pool[torch.randint(len(pool), (options.batch,))]
    height, width = (min(options.crop_codes * options.factor, side) for side in pool.shape[-2:])
    top, left = (
        int(torch.randint(whole - part + 1, ())) for whole, part in zip(pool.shape[-2:], (height, width), strict=True)
    )
    crops = _unit(chosen[..., top : top + height, left : left + width])
    return crops.flip(-1) if int(torch.randint(2, ())) else crops


class _Fit:
    """What changes from step to step: weights, Adam's moments, the moving averages of the book."""

    def __init__(self, tokenizer: Tokenizer, options: FitOptions) -> None:
        assert isinstance(tokenizer.quantize, Codebook)
        self._tokenizer, self._options = tokenizer, options
        tokenizer.requires_grad_(True)
        self._book = tokenizer.quantize.embedding.weight.requires_grad_(False)
        weights = [param for param in tokenizer.parameters() if param.requires_grad]
        self._optimizer = torch.optim.AdamW(weights, lr=options.lr, weight_decay=0.0)
        self._counts = torch.ones(options.num_codes, device=self._book.device)
        self._sums = self._book.clone()
        self._seen: list[Tensor] = []

    def step(self, number: int, images: Tensor) -> None:
        """Take one step on (B, 3, H, W) images in [0, 1]."""
        options = self._options
        first_with_codes = int(WITHOUT_CODES * options.steps)
        if number == first_with_codes:
            self._start_book()
        for group in self._optimizer.param_groups:
            group["lr"] = lr_at(
                number, total=options.steps, warmup=options.steps // 20, peak=options.lr, final=options.lr / 20
            )
        latents = self._tokenizer.latents(images)  # (B, C, h, w)
        if number < first_with_codes:
            vectors, commitment = latents, latents.new_zeros(())
            self._remember(latents)
        else:
            codes = self._tokenizer.quantize.indices(latents.detach())
            nearest = self._tokenizer.quantize.vectors(codes)
            commitment = F.mse_loss(latents, nearest)
            vectors = latents + (nearest - latents).detach()
            self._move_book(latents.detach(), codes)
        difference = self._tokenizer.decode(vectors) - images
        # Scaled so that an image's own contrast, about 0.2, has an error near 1.
        loss = 25 * difference.square().mean() + 5 * difference.abs().mean() + COMMITMENT * commitment
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _remember(self, latents: Tensor) -> None:
        self._seen.append(_rows(latents.detach()))
        if sum(map(len, self._seen[1:])) >= max(KMEANS_LATENTS, 4 * self._options.num_codes):
            del self._seen[0]  # from weights that are long gone

    @torch.no_grad()
    def _start_book(self) -> None:
        """Set the book to the means of k-means over the last latents, and the averages to an even use."""
        num_codes = self._options.num_codes
        rows = torch.cat(self._seen) if self._seen else self._book.clone()
        start = torch.randint(len(rows), (num_codes,)) if len(rows) < num_codes else torch.randperm(len(rows))
        book = rows[start[:num_codes].to(rows.device)]
        for _ in range(KMEANS_ROUNDS):
            given = F.one_hot(torch.cdist(rows, book).argmin(1), num_codes).float()  # (M, K)
            count = given.sum(0)[:, None]
            book = torch.where(count > 0, given.T @ rows / count.clamp(min=1), book)
        self._book.copy_(book)
        self._sums.copy_(book)
        self._seen.clear()

    @torch.no_grad()
    def _move_book(self, latents: Tensor, codes: Tensor) -> None:
        """Move each vector toward the mean of the latents that were given its code, and restart dead ones."""
        rows = _rows(latents)
        given = F.one_hot(codes.flatten(), len(self._book)).float()  # (M, K); a product is the same every time
        even = len(rows) / len(self._book)
        # Counts are in units of an even use, so that one rule holds for every size of batch and book.
        self._counts.lerp_(given.sum(0) / even, 1 - DECAY)
        self._sums.lerp_(given.T @ rows / even, 1 - DECAY)
        dead = (self._counts < DEAD).nonzero()[:, 0]
        fresh = rows[torch.randint(len(rows), (len(dead),)).to(rows.device)]
        self._sums[dead], self._counts[dead] = fresh, 1.0
        self._book.copy_(self._sums / self._counts[:, None])


def _rows(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (M, C)."""
    return latents.permute(0, 2, 3, 1).flatten(0, 2)
