"""Masks that move with the scene: an initial map, carried along optical flow and summed over cubes.

B clips, T frames of H x W px, S slots, F places per slot, N = S x F tokens. Flow is in px, x then y, and defined on the
grid of the frame it starts from: frame a at x shows what frame b shows at x + flow(x). The steps are those of MGMAE
(arXiv:2308.10794, section 3.2); where its released code computes something else, the switches here say so.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from system.core.clip import TokenGrid
from system.core.masks import Noise, Visible, smallest

# What the released code writes into hidden pixels of its two-valued maps, so that 0 can mean "no value".
HIDDEN_PIXEL = 1e-8


def drawn_places(noise: Noise, count: int) -> Visible:
    """Return (B, F) bool, the `count` places with the smallest draws of the first slot: what a tube would show."""
    return smallest(noise[:, 0], count)


def gaussian_map(places: Tensor, grid: TokenGrid) -> Tensor:
    """Put a bump on every drawn place: `max_k exp(-|x - c_k|^2 / patch^2)`, scaled to a maximum of 1.

    Float32 in every case: in float16 the tails become 0, which the released code would take for holes.

    Args:
        places: (B, F) bool, the drawn places.
        grid: the token grid.

    Returns:
        (B, H, W) float32 in (0, 1]. No factor 1/2 in the exponent: sigma is patch / sqrt(2), 11.3 px for 16 px patches.
    """
    patch = grid.patch_px

    def profile(count: int) -> Tensor:
        centre = patch * torch.arange(count, device=places.device) + (patch - 1) / 2
        pixel = torch.arange(count * patch, device=places.device)
        return torch.exp(-(((pixel[None] - centre[:, None]) / patch) ** 2))  # (places, px)

    rows, cols = profile(grid.rows), profile(grid.cols)
    drawn = places.reshape(len(places), grid.rows, grid.cols)
    # The maximum over a row's drawn columns first, then over rows, one after the other: (B, rows, W) -> (B, H, W).
    along = (drawn[..., None] * cols).amax(2)
    bumps = rows[0][:, None] * along[:, 0, None]
    for row in range(1, grid.rows):
        torch.maximum(bumps, rows[row][:, None] * along[:, row, None], out=bumps)
    return bumps / bumps.amax((1, 2), keepdim=True)


def place_map(places: Tensor, grid: TokenGrid) -> Tensor:
    """Return the two-valued map of whole patches: 1 on a drawn place, 1e-8 elsewhere, (B, H, W) float32."""
    drawn = places.reshape(len(places), grid.rows, grid.cols).float()
    patch = grid.patch_px
    return drawn.repeat_interleave(patch, 1).repeat_interleave(patch, 2).clamp_min(HIDDEN_PIXEL)


def on_pixels(flow: Tensor, height: int, width: int) -> Tensor:
    """Bring flow from cells to px, bilinear: (B, R, h, w, 2) -> (B, R, height, width, 2); flow on px stays as it is."""
    if flow.shape[2:4] == (height, width):
        return flow
    cells = flow.flatten(0, 1).permute(0, 3, 1, 2)
    pixels = F.interpolate(cells, size=(height, width), mode="bilinear", align_corners=False)
    return pixels.permute(0, 2, 3, 1).reshape(*flow.shape[:2], height, width, 2)


class Sampler:
    """Looks maps up along flow: `out(x) = source(x + flow(x))`, bilinear, 0 outside of the frame.

    Args:
        flow: any of the flows, (.., H, W, 2) float32 px; its size and device are taken.
        half_size_scale: divide flow by W/2 instead of (W - 1)/2, as the released code does: 32 px become 31.86.
    """

    def __init__(self, flow: Tensor, *, half_size_scale: bool = False) -> None:
        height, width = flow.shape[-3:-1]
        size = flow.new_tensor([width, height])
        ys, xs = torch.meshgrid(
            torch.arange(height, device=flow.device, dtype=flow.dtype),
            torch.arange(width, device=flow.device, dtype=flow.dtype),
            indexing="ij",
        )
        self._here = torch.stack([xs, ys], -1) / (size - 1) * 2 - 1
        # As large as the flow: two numbers at a time would be what is worked on in a row.
        self._scale = ((size if half_size_scale else size - 1) / 2).expand_as(self._here).contiguous()

    def __call__(self, source: Tensor, flow: Tensor) -> Tensor:
        """Return maps of the frame that the flow starts from.

        Args:
            source: (B, K, H, W) float32, K maps of the frame that the flow points to.
            flow: (B, H, W, 2) float32 px, from the frame of the result to the frame of `source`.

        Returns:
            (B, K, H, W).
        """
        where = self._here + flow / self._scale
        return F.grid_sample(source, where, mode="bilinear", padding_mode="zeros", align_corners=True)


def _outward(base: int, num_frames: int) -> Iterator[tuple[int, int, int]]:
    """Yield (frame, its neighbour nearer to the base frame, the pair between them), from the base frame outward."""
    for frame in range(base + 1, num_frames):
        yield frame, frame - 1, frame - 1
    for frame in range(base - 1, -1, -1):
        yield frame, frame + 1, frame


def carry(initial: Tensor, flow: Tensor, base: int, *, fill_holes: bool = True) -> Tensor:
    """Carry the map of frame `base` to every frame of the clip, one neighbour at a time.

    A map of ones is carried along: where it has become less than a half, a pixel comes from outside of the frame. Such
    a hole gets the initial map's value at the same place, after the carrying, so that what was filled in is not carried
    on: the released code fills before the next step, which smears the border's value over the frame.

    Args:
        initial: (B, H, W) float32, the map of frame `base`.
        flow: (B, T - 1, H, W, 2) float32 px, in the order of `pairs_toward(base, T)`.
        base: the frame that `initial` belongs to.
        fill_holes: False leaves holes at 0.

    Returns:
        (B, T, H, W) float32.
    """
    look_up = Sampler(flow)
    frames = initial.new_empty(len(initial), flow.shape[1] + 1, *initial.shape[1:])
    # One clip after the other on a CPU: its maps stay in the cache.
    together = 1 if initial.device.type == "cpu" else max(1, len(initial))
    for first in range(0, len(initial), together):
        part = slice(first, first + together)
        _carry_into(frames[part], look_up, initial[part], flow[part], base, fill_holes=fill_holes)
    return frames


def _carry_into(
    frames: Tensor, look_up: Sampler, initial: Tensor, flow: Tensor, base: int, *, fill_holes: bool
) -> None:
    """Fill (B, T, H, W) with the maps that are carried from frame `base` on."""
    # (B, 2, H, W): the map, and what says whether it comes from inside of the frame
    carried = {base: torch.stack([initial, torch.ones_like(initial)], 1) if fill_holes else initial[:, None]}
    frames[:, base] = initial
    for frame, nearer, pair in _outward(base, frames.shape[1]):
        carried[frame] = look_up(carried[nearer], flow[:, pair])
        mine = carried[frame][:, 0]
        frames[:, frame] = torch.where(carried[frame][:, 1] < 0.5, initial, mine) if fill_holes else mine


def carry_as_released(initial: Tensor, flow: Tensor, base: int, *, fill_holes: bool = True) -> Tensor:
    """Carry a map as MGMAE's released code does: flow scaled by W/2, holes are exact zeros, filled at every step.

    Args and result as `carry`; the wrong direction before the base frame is the caller's choice of pairs.
    """
    num_frames = flow.shape[1] + 1
    look_up, maps = Sampler(flow, half_size_scale=True), {base: initial}
    for frame, nearer, pair in _outward(base, num_frames):
        warped = look_up(maps[nearer][:, None], flow[:, pair])[:, 0]
        maps[frame] = torch.where(warped == 0, initial, warped) if fill_holes else warped
    return torch.stack([maps[frame] for frame in range(num_frames)], 1)


def cube_scores(maps: Tensor, grid: TokenGrid) -> Tensor:
    """Sum maps over each tubelet: (B, T, H, W) -> (B, S, F) float32."""
    batch = len(maps)
    cubes = maps.reshape(
        batch, grid.slots, grid.tubelet_frames, grid.rows, grid.patch_px, grid.cols, grid.patch_px
    )  # (B, S, t, rows, p, cols, p)
    return cubes.sum((2, 4, 6)).reshape(batch, grid.slots, grid.places)
