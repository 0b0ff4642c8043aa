"""RAFT-small (Teed and Deng, ECCV 2020, arXiv:2003.12039), the flow of MGMAE's paper, over many frame pairs at once.

The modules are torchvision's, whose results equal the original's; the order of the work is ours. A clip's pairs share
frames, so each frame is encoded once, and all pairs are refined side by side. The result is the same.

B clips, T frames of H x W px, R pairs, P = B x R. Maps are (.., h, w) with h = H / 8. Frames are given in [-1, 1]:
another range gives flow that looks plausible and is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import optical_flow

from system.config import MotionSection
from system.core.pairs import FramePair
from system.motion.base import check_raft_size
from system.motion.raft_refine import Correlation, Update, innermost, levels_of
from system.motion.raft_weights import load_network

if TYPE_CHECKING:
    from system.motion.base import Frames

# Working memory of one chunk of frames or pairs, about: a block of 48 clips (720 pairs) would want gigabytes at once.
# On a CPU it stays near the caches: 4 pairs of 224 px are 9% faster than 20. A GPU is kept busy by 41.
CPU_CHUNK_BYTES = 32 << 20
GPU_CHUNK_BYTES = 256 << 20
# Per px of a frame: the encoders' first maps have 32 channels of float32 on a quarter of the px, about four at a time.
FRAME_BYTES_PER_PX = 144
# Per place, besides its row of the correlation: 256 indexes and values, what is blended of them, the update's maps.
LOOKUP_BYTES = 8 * 256 + 4 * 1700


class RAFT:
    """RAFT-small with a fixed number of updates.

    Encoders and updates run in bf16 where the device has it, correlation and flow always in fp32.

    Args:
        network: torchvision's raft_small, in eval mode on its device; the order of its weights in memory is changed.
        updates: flow updates; MGMAE uses 6.
        size: side to which frames are scaled for the network, px; the flow is scaled back. None: as they are.
    """

    def __init__(self, network: optical_flow.RAFT, updates: int, size: int | None = None) -> None:
        self._network, self._updates, self._size = network, updates, size
        self._update = Update(network.update_block)
        # Not the feature encoder, whose norms are slow in that order.
        network.context_encoder.to(memory_format=torch.channels_last)
        self._device = next(network.parameters()).device
        self._chunk_bytes = CPU_CHUNK_BYTES if self._device.type == "cpu" else GPU_CHUNK_BYTES
        self._bf16 = self._device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    @torch.inference_mode()
    def __call__(self, frames: Frames, pairs: Sequence[FramePair]) -> Tensor:
        """Return the flow of every pair: (B, T, H, W, 3) uint8 RGB -> (B, R, H, W, 2) float32 px, on the device.

        Raises:
            ValueError: if the frames are too small for the network.
        """
        batch, _, height, width, _ = frames.shape
        out = torch.empty((batch * len(pairs), height, width, 2), device=self._device)
        if len(out):
            pixels, first, second = self._given(frames, pairs)
            starts, context_of = torch.unique(first, return_inverse=True)
            features = self._encode(self._network.feature_encoder, pixels)
            context = self._encode(self._network.context_encoder, pixels[starts])
            places, columns = features.shape[2] * features.shape[3], levels_of(*features.shape[2:])[-1].stop
            for rows in self._chunks(len(out), places * (4 * columns + LOOKUP_BYTES)):
                flow = self._refine(features[first[rows]], features[second[rows]], context[context_of[rows]])
                out[rows] = _enlarged(flow, height, width).permute(0, 2, 3, 1)
        return out.reshape(batch, len(pairs), height, width, 2)

    def _given(self, frames: Frames, pairs: Sequence[FramePair]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the frames that the pairs name, and the rows of each pair's first and second frame in them.

        Returns:
            (rows, 3, h, w) float32 in [-1, 1] at the network's size, and two (P,) int64, clip by clip.
        """
        height, width = frames.shape[2:4]
        check_raft_size(self._size, height, width)
        named = sorted({frame for pair in pairs for frame in pair})
        pixels = torch.from_numpy(frames[:, named]).to(self._device).flatten(0, 1).permute(0, 3, 1, 2).float()
        if self._size is not None and (height, width) != (self._size, self._size):
            pixels = F.interpolate(pixels, (self._size, self._size), mode="bilinear", antialias=True)
        places = torch.tensor([[named.index(pair.start), named.index(pair.end)] for pair in pairs], device=self._device)
        clips = torch.arange(len(frames), device=self._device) * len(named)
        rows = (clips[:, None, None] + places).flatten(0, 1)
        return pixels / 127.5 - 1, rows[:, 0], rows[:, 1]

    def _encode(self, encoder: nn.Module, pixels: Tensor) -> Tensor:
        """Return an encoder's maps: (frames, 3, H, W) -> (frames, channels, h, w) float32."""
        frame_bytes = FRAME_BYTES_PER_PX * pixels.shape[2] * pixels.shape[3]
        with self._autocast():
            return torch.cat([encoder(pixels[rows]).float() for rows in self._chunks(len(pixels), frame_bytes)])

    def _refine(self, first: Tensor, second: Tensor, context: Tensor) -> Tensor:
        """Update flow from zero on: three (pairs, channels, h, w) -> (pairs, 2, h, w), in px of the maps."""
        correlation = Correlation(first, second)
        ys, xs = (torch.arange(side, device=self._device, dtype=torch.float32) for side in first.shape[2:])
        here = torch.stack(torch.meshgrid(xs, ys, indexing="xy"))
        flow = innermost(torch.zeros_like(here).repeat(len(first), 1, 1, 1))
        with self._autocast():  # which leaves the look-up in fp32
            state = self._update.start(context)
            for _ in range(self._updates):
                state, step = self._update(state, correlation.near(here + flow), flow)
                flow = flow + step.float()
        return flow

    def _chunks(self, count: int, each_bytes: int) -> Iterator[slice]:
        """Cut `count` rows into chunks that fit the working memory, of one row at least."""
        size = max(1, self._chunk_bytes // each_bytes)
        return (slice(start, start + size) for start in range(0, count, size))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)


def _enlarged(flow: Tensor, height: int, width: int) -> Tensor:
    """Bring flow from the maps to the clip: (pairs, 2, h, w) -> (pairs, 2, height, width), in px of the clip."""
    flow = 8 * F.interpolate(flow, scale_factor=8, mode="bilinear", align_corners=True)  # as the network was trained
    if flow.shape[2:] == (height, width):
        return flow
    scale = flow.new_tensor([width / flow.shape[3], height / flow.shape[2]])
    return F.interpolate(flow, (height, width), mode="bilinear", antialias=True) * scale[:, None, None]


def load_raft(motion: MotionSection, device: str) -> RAFT:
    """Load RAFT-small from the URI in `motion.weights`.

    Raises:
        WeightsError: if the file is missing, is not a plain file of tensors, or belongs to another network.
    """
    assert motion.weights is not None, "checked with the recipe"
    return RAFT(load_network(motion.weights).to(device), motion.updates, motion.size)
