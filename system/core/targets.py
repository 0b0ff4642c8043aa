"""What a decoder must predict for each token.

B clips, C = 3 colours, T frames of H x W px, N tokens, P = tubelet_frames x patch x patch x 3 values per token, ordered
(frame, row, col, colour) inside a tubelet.
"""

from __future__ import annotations

from torch import Tensor

from system.core.clip import TokenGrid

# Statistics of ImageNet, RGB, that frames in [0, 1] are normalised with before the encoder.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def patchify(frames: Tensor, grid: TokenGrid) -> Tensor:
    """Cut frames into tubelets: (B, 3, T, H, W) -> (B, N, t * p * p, 3)."""
    batch, colours = frames.shape[:2]
    patch = grid.patch_px
    cut = frames.reshape(batch, colours, grid.slots, grid.tubelet_frames, grid.rows, patch, grid.cols, patch)
    # (B, C, S, t, rows, p, cols, p) -> (B, S, rows, cols, t, p, p, C)
    return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, grid.tokens, -1, colours)


def unpatchify(tokens: Tensor, grid: TokenGrid) -> Tensor:
    """Put tubelets back in place: (B, N, P) -> (B, 3, T, H, W)."""
    batch, patch = len(tokens), grid.patch_px
    cut = tokens.reshape(batch, grid.slots, grid.rows, grid.cols, grid.tubelet_frames, patch, patch, 3)
    # (B, S, rows, cols, t, p, p, C) -> (B, C, S, t, rows, p, cols, p)
    return cut.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(batch, 3, grid.num_frames, grid.height, grid.width)


def token_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over a token's pixels, per colour: two (B, N, 1, 3).

    The variance is the unbiased one, and 1e-6 is added to its root (VideoMAE's pre-training engine).
    """
    mean = patches.mean(2, keepdim=True)
    std = patches.var(2, unbiased=True, keepdim=True).sqrt() + 1e-6
    return mean, std


def normalized_pixels(frames: Tensor, grid: TokenGrid) -> Tensor:
    """Return each token's pixels, normalised per token and colour (VideoMAE, arXiv:2203.12602, section 3.3).

    Args:
        frames: (B, 3, T, H, W) float in [0, 1].
        grid: the token grid.

    Returns:
        (B, N, P) float, zero mean and unit variance over the pixels of each colour; a flat token is all zero.
    """
    patches = patchify(frames, grid)
    mean, std = token_statistics(patches)
    return ((patches - mean) / std).flatten(2)


def pixels(frames: Tensor, grid: TokenGrid) -> Tensor:
    """Return each token's pixels as they are: (B, 3, T, H, W) in [0, 1] -> (B, N, P)."""
    return patchify(frames, grid).flatten(2)
