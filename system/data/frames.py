"""Single frames of a run's clips, as a tokenizer is fitted to: the crops that the trainers will see, without masks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from system.core.plan import StepLayout
from system.data.assemble import clip_maker, limits_of
from system.data.stages import DecodeStage, ReadStage
from system.recipe import Recipe

# Frames taken from each clip, evenly over its length: neighbours show nearly the same.
FRAMES_PER_CLIP = 4
# Videos read and decoded at a time.
VIDEOS_AT_ONCE = 8


def clip_frames(recipe: Recipe, index_uri: str, num_images: int) -> Iterator[Tensor]:
    """Yield frames of the run's first clips, in the order of its plan, decoded in a child of this process.

    Args:
        recipe: of the run.
        index_uri: of its index.
        num_images: about how many frames in all; videos are not repeated, so there may be fewer.

    Yields:
        (B, 3, H, W) uint8, the frames of a few videos each. Videos that cannot be read are left out.
    """
    views, grid = recipe.data.views, recipe.grid
    per_clip = min(FRAMES_PER_CLIP, grid.num_frames)
    chosen = np.linspace(0, grid.num_frames - 1, per_clip).round().astype(int)
    maker = clip_maker(recipe, index_uri)
    videos = min(maker.plan.num_videos, -(-num_images // (per_clip * views)))
    layout = StepLayout(videos, views, 1, min(videos, VIDEOS_AT_ONCE), -(-videos // VIDEOS_AT_ONCE))
    read, decode = ReadStage(maker, layout, {}), DecodeStage(maker, limits_of(recipe), None, {})
    try:
        for number in range(layout.blocks_per_rank):
            clips = decode(read({"block": np.array([number])}))
            frames = clips["frames"][clips["weight"] > 0][:, chosen]  # (clips, frames, H, W, 3)
            if len(frames):
                yield torch.from_numpy(frames).flatten(0, 1).permute(0, 3, 1, 2)
    finally:
        decode.close()
