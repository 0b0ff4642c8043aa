"""What a decoder must predict for each token.

B clips, C = 3 colours, T frames of H x W px, N tokens, P = tubelet_frames x patch x patch x 3 values per token, ordered
(frame, row, col, colour) inside a tubelet.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from system.core.clip import TokenGrid

# Statistics of ImageNet, RGB, that frames in [0, 1] are normalised with before the encoder.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def patchify(frames: Tensor, grid: TokenGrid) -> Tensor:
    """Cut frames into tubelets: (B, C, T, H, W) -> (B, N, t * p * p, C)."""
    batch, colours = frames.shape[:2]
    patch = grid.patch_px
    cut = frames.reshape(batch, colours, grid.slots, grid.tubelet_frames, grid.rows, patch, grid.cols, patch)
    # (B, C, S, t, rows, p, cols, p) -> (B, S, rows, cols, t, p, p, C)
    return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, grid.tokens, -1, colours)


def unpatchify(tokens: Tensor, grid: TokenGrid) -> Tensor:
    """Put tubelets back in place: (B, N, t * p * p * C) -> (B, C, T, H, W)."""
    batch, patch = len(tokens), grid.patch_px
    cut = tokens.reshape(batch, grid.slots, grid.rows, grid.cols, grid.tubelet_frames, patch, patch, -1)
    # (B, S, rows, cols, t, p, p, C) -> (B, C, S, t, rows, p, cols, p)
    return cut.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(batch, -1, grid.num_frames, grid.height, grid.width)


def shown_as_frames(values: Tensor, grid: TokenGrid, images: int) -> Tensor:
    """Show signed values of pixels around a middle grey, for people.

    Args:
        values: (B, N, images * p * p * C), C is 1 or 3.
        grid: the token grid.
        images: how many a tubelet has: one for each of its frames, or one.

    Returns:
        (B, 3, T, H, W) in [0, 1]; four times the mean size of the values reaches black and white.
    """
    made = unpatchify(values, replace(grid, tubelet_frames=images))
    made = made.repeat_interleave(grid.tubelet_frames // images, 2).expand(-1, 3, -1, -1, -1)
    return (0.5 + made / (8 * values.abs().mean()).clamp_min(1e-6)).clamp(0, 1)


def token_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over a token's pixels, per colour: two (B, N, 1, 3).

    The variance is the unbiased one, and 1e-6 is added to its root (VideoMAE's pre-training engine).
    """
    mean = patches.mean(2, keepdim=True)
    std = patches.var(2, unbiased=True, keepdim=True).sqrt() + 1e-6
    return mean, std


def normalized(patches: Tensor) -> Tensor:
    """Take mean and contrast out of each token and colour: (B, N, pixels, C) -> (B, N, pixels * C)."""
    mean, std = token_statistics(patches)
    return ((patches - mean) / std).flatten(2)


def normalized_pixels(frames: Tensor, grid: TokenGrid) -> Tensor:
    """Return each token's pixels, normalised per token and colour (VideoMAE, arXiv:2203.12602, section 3.3).

    Args:
        frames: (B, 3, T, H, W) float in [0, 1].
        grid: the token grid.

    Returns:
        (B, N, P) float, zero mean and unit variance over the pixels of each colour; a flat token is all zero.
    """
    return normalized(patchify(frames, grid))


def pixels(frames: Tensor, grid: TokenGrid) -> Tensor:
    """Return each token's pixels as they are: (B, 3, T, H, W) in [0, 1] -> (B, N, P)."""
    return patchify(frames, grid).flatten(2)


def flat_grid(grid: TokenGrid) -> TokenGrid:
    """Return the grid of a clip that has one image a slot."""
    return replace(grid, tubelet_frames=1)


def slot_differences(frames: Tensor, grid: TokenGrid) -> Tensor:
    """Return the last frame of every slot minus its first: (B, C, T, H, W) -> (B, C, S, H, W).

    With tubelets of two frames, the difference of the two (MAM2's RGB difference, arXiv:2210.05234; the definition is
    ours, the paper's is not public).
    """
    step = grid.tubelet_frames
    return frames[:, :, step - 1 :: step] - frames[:, :, ::step]


# Orientations of a histogram, and cells along each side of a patch.
HOG_BINS = 9
HOG_CELLS = 2


def hog(images: Tensor, grid: TokenGrid) -> Tensor:
    """Return histograms of oriented gradients of one image a slot (Dalal and Triggs, CVPR 2005).

    Args:
        images: (B, C, S, H, W); the colours are averaged.
        grid: the token grid.

    Returns:
        (B, N, 36): 9 unsigned orientations in 2 x 2 cells of a patch, weighted by the gradient's size and scaled to a
        length of 1 per token; all zero where nothing changes.
    """
    grey = images.float().mean(1)  # (B, S, H, W)
    gx = F.pad(grey[..., 2:] - grey[..., :-2], (1, 1))
    gy = F.pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1))
    angle = torch.atan2(gy, gx).remainder(torch.pi) / torch.pi * HOG_BINS
    bins = F.one_hot(angle.long().clamp_max(HOG_BINS - 1), HOG_BINS)  # (B, S, H, W, bins)
    weighted = (bins * gx.hypot(gy)[..., None]).permute(0, 1, 4, 2, 3).flatten(0, 2)
    size = (grid.rows * HOG_CELLS, grid.cols * HOG_CELLS)
    cells = F.adaptive_avg_pool2d(weighted[:, None], size)
    cells = cells.reshape(len(images), grid.slots, HOG_BINS, grid.rows, HOG_CELLS, grid.cols, HOG_CELLS)
    tokens = cells.permute(0, 1, 3, 5, 4, 6, 2).reshape(len(images), grid.tokens, -1)
    return F.normalize(tokens, dim=-1, eps=1e-6)


# Values of pooled flow along each side of a patch.
FLOW_CELLS = 4


def pooled_flow(flow: Tensor, grid: TokenGrid) -> Tensor:
    """Average flow over 4 x 4 cells of each patch, in patches: (B, S, H, W, 2) px -> (B, N, 32)."""
    batch = len(flow)
    size = (grid.rows * FLOW_CELLS, grid.cols * FLOW_CELLS)
    cells = F.adaptive_avg_pool2d(flow.flatten(0, 1).permute(0, 3, 1, 2), size) / grid.patch_px
    cells = cells.reshape(batch, grid.slots, 2, grid.rows, FLOW_CELLS, grid.cols, FLOW_CELLS)
    return cells.permute(0, 1, 3, 5, 4, 6, 2).reshape(batch, grid.tokens, -1)
