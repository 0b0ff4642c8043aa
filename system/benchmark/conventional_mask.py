"""A motion-guided mask the ordinary way: torchvision's RAFT-small, pair after pair, and the warp frame after frame.

T frames of H x W px, S slots, F places per slot, N = S x F tokens. What MGMAE (arXiv:2308.10794) describes, written
with nothing but torch and torchvision, as somebody would who follows the paper.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models import optical_flow

from system.core.clip import TokenGrid

# MGMAE's.
UPDATES = 6


class ConventionalMask:
    """Frames of one clip to `visible`, with a network on its device."""

    def __init__(self, network: optical_flow.RAFT, grid: TokenGrid) -> None:
        self._network, self._grid = network, grid
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def __call__(self, frames: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return `visible` of a clip: (T, H, W, 3) uint8 and the drawn places -> (N,) bool."""
        base = len(frames) // 2
        flow = self.flow(frames)
        maps = {base: self._bumps(places)}
        for frame in range(base + 1, len(frames)):
            maps[frame] = self._warped(maps[frame - 1], flow[frame - 1], maps[base])
        for frame in range(base - 1, -1, -1):
            maps[frame] = self._warped(maps[frame + 1], flow[frame], maps[base])
        return self._visible(torch.stack([maps[frame] for frame in range(len(frames))]), len(places))

    @torch.no_grad()
    def flow(self, frames: NDArray[np.uint8]) -> list[Tensor]:
        """Return the flow of each frame toward its neighbour nearer to the middle one: T - 1 of (2, H, W) px."""
        pixels = torch.from_numpy(frames).to(self._device).permute(0, 3, 1, 2).float() / 255 * 2 - 1
        base, found = len(frames) // 2, []
        for frame in range(len(frames) - 1):
            start, end = (frame, frame + 1) if frame < base else (frame + 1, frame)
            found.append(self._network(pixels[start, None], pixels[end, None], num_flow_updates=UPDATES)[-1][0])
        return found

    def _bumps(self, places: NDArray[np.int64]) -> Tensor:
        """Return the base frame's map: the largest of the bumps on the drawn places at every px, (H, W)."""
        grid, patch = self._grid, self._grid.patch_px
        rows = torch.arange(grid.height, device=self._device)[:, None]
        cols = torch.arange(grid.width, device=self._device)[None]
        total = torch.zeros(grid.height, grid.width, device=self._device)
        for place in places.tolist():
            y, x = (patch * index + (patch - 1) / 2 for index in divmod(place, grid.cols))
            total = torch.maximum(total, torch.exp(-(((rows - y) / patch) ** 2) - ((cols - x) / patch) ** 2))
        return total / total.max()

    def _warped(self, source: Tensor, flow: Tensor, initial: Tensor) -> Tensor:
        """Look the map of the nearer frame up along the flow; what comes from outside is taken from the base frame."""
        height, width = source.shape
        ys, xs = torch.meshgrid(
            torch.arange(height, device=self._device), torch.arange(width, device=self._device), indexing="ij"
        )
        where = torch.stack([(xs + flow[0]) / (width - 1), (ys + flow[1]) / (height - 1)], -1) * 2 - 1
        warped = F.grid_sample(source[None, None], where[None], align_corners=True)[0, 0]
        return torch.where(warped == 0, initial, warped)

    def _visible(self, maps: Tensor, count: int) -> NDArray[np.bool_]:
        grid = self._grid
        scores = F.avg_pool3d(maps[None, None], (grid.tubelet_frames, grid.patch_px, grid.patch_px)).reshape(
            grid.slots, grid.places
        )
        shown = torch.zeros_like(scores, dtype=torch.bool)
        shown.scatter_(1, scores.topk(count, 1).indices, True)
        visible: NDArray[np.bool_] = shown.flatten().cpu().numpy()
        return visible
