"""The two ways from latents to codes, with the names that the VQGAN authors' checkpoints use for their weights.

B images, h x w codes, K codes of the book, C channels of a code's vector.
"""

from __future__ import annotations

from torch import Tensor, nn


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
    """A 1x1 convolution scores K codes; the code of a latent is the best one's index.

    The authors' module adds Gumbel noise to the scores even in evaluation, so the codes of an image change from call to
    call. Labels must not, so there is no noise here.
    """

    def __init__(self, num_codes: int, code_width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(code_width, num_codes, 1)
        self.embed = nn.Embedding(num_codes, code_width)

    def indices(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, h, w) int64."""
        scores: Tensor = self.proj(latents.float())
        return scores.argmax(1)

    def vectors(self, codes: Tensor) -> Tensor:
        """(B, h, w) -> (B, C, h, w)."""
        out: Tensor = self.embed(codes)
        return out.permute(0, 3, 1, 2)
