"""Features of every place of single frames, at other sizes than the encoder was trained on.

A video transformer takes tubelets of several frames. One frame becomes one either by repetition (`duplicate`: one slot,
the first of the trained positions) or within a clip around it (`sliding`: the frame begins the clip's middle slot).
Positions are a table over the trained grid (slot, row, col); each slot's part is resized to the frame's rows and cols,
bicubic. The table was fixed and not learnt, and is a code of the flattened index; so no code can be computed anew that
would mean the same at another size.

B frames, T frames of a clip of H x W px, S slots, F places of a slot (rows x cols), D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from system.core.clip import TokenGrid
from system.evaluate.features import batches, float_frames
from system.models.encoder import Encoder

Image = NDArray[np.uint8]
Tubelet = Literal["duplicate", "sliding"]


@dataclass(frozen=True, slots=True)
class Dense:
    """Which features a frame has.

    Attributes:
        tubelet: what a frame's tubelet is made of.
        clip_stride: frames of the video from one frame of a sliding clip to the next.
        layer: block whose output is taken, from 1; 0: the last one.
        norm: whether the encoder's last LayerNorm follows it.
        bf16: compute in bfloat16 where autocast allows it.
        batch: frames of one forward, each with its whole clip.
    """

    tubelet: Tubelet = "duplicate"
    clip_stride: int = 1
    layer: int = 0
    norm: bool = True
    bf16: bool = False
    batch: int = 4


def resized_positions(table: Tensor, grid: TokenGrid, slots: int, rows: int, cols: int) -> Tensor:
    """Resize the trained positions of the first slots: (N, D) -> (slots x rows x cols, D), bicubic within each slot."""
    trained = table.reshape(grid.slots, grid.rows, grid.cols, -1)[:slots].permute(0, 3, 1, 2)  # (slots, D, r, c)
    resized = F.interpolate(trained, size=(rows, cols), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(slots * rows * cols, -1)


def clip_numbers(frame: int, num_frames: int, grid: TokenGrid, how: Dense) -> list[int]:
    """Return the frames that one frame's features are computed from; beyond the video its ends are repeated."""
    if how.tubelet == "duplicate":
        return [frame] * grid.tubelet_frames
    first = frame - middle_slot(grid) * grid.tubelet_frames * how.clip_stride
    wanted = (first + step * how.clip_stride for step in range(grid.num_frames))
    return [min(max(number, 0), num_frames - 1) for number in wanted]


def middle_slot(grid: TokenGrid) -> int:
    """Return the slot of a sliding clip whose features are the frame's."""
    return grid.slots // 2


class DenseEncoder:
    """A frozen encoder that looks at frames of one size.

    Args:
        encoder: on its device.
        grid: that it was trained on.
        rows_cols: rows and cols of patches of the frames.
        how: which features.
    """

    def __init__(self, encoder: Encoder, grid: TokenGrid, rows_cols: tuple[int, int], how: Dense) -> None:
        self.encoder, self.grid, self.how, self.rows_cols = encoder.eval(), grid, how, rows_cols
        self.slots = 1 if how.tubelet == "duplicate" else grid.slots
        self.positions = resized_positions(encoder.positions, grid, self.slots, *rows_cols)

    @torch.inference_mode()
    def tokens(self, clips: Tensor) -> Tensor:
        """Return the features of the frames that clips are about: (B, 3, T, H, W) in [0, 1] -> (B, F, D) float32."""
        encoder, embed = self.encoder, self.encoder.patch_embed
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=self.how.bf16):
            proj = embed.proj
            x = F.conv3d((clips - embed.mean) / embed.std, proj.weight, proj.bias, proj.stride)  # (B, D, S, rows, cols)
            x = x.flatten(2).transpose(1, 2) + self.positions
            for block in islice(encoder.blocks, self.how.layer or None):
                x = block(x)
            places = self.rows_cols[0] * self.rows_cols[1]
            start = (0 if self.slots == 1 else middle_slot(self.grid)) * places
            x = x[:, start : start + places]
            return (encoder.norm(x) if self.how.norm else x).float()

    def of_video(self, read: Callable[[int], Image], num_frames: int) -> Iterator[Tensor]:
        """Yield the features of each frame of a video: (F, D) float32 on the encoder's device.

        Args:
            read: a frame by its number: (H, W, 3) uint8, each read once.
            num_frames: frames of the video.
        """
        device = self.positions.device
        reach = self.grid.num_frames * self.how.clip_stride if self.how.tubelet == "sliding" else 1
        kept = lru_cache(maxsize=reach + self.how.batch)(read)
        for rows in batches(num_frames, self.how.batch):
            numbers = [clip_numbers(i, num_frames, self.grid, self.how) for i in range(rows.start, rows.stop)]
            clips = np.stack([np.stack([kept(number) for number in clip]) for clip in numbers])
            yield from self.tokens(float_frames(clips, device))
