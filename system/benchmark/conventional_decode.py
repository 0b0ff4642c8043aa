"""Decoding as VideoMAE's loader does it, by the same public libraries: decord, Pillow, torch.

One reader a clip, all wanted frames as RGB at the size of the video, then for each view and frame a Pillow picture that
is cropped and resized, and a float tensor that is normalised.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from system.core.targets import IMAGENET_MEAN, IMAGENET_STD
from system.data.augment import Crop, box_of

if TYPE_CHECKING:
    from PIL.Image import Image


def missing_packages() -> list[str]:
    """Return what is not installed of that."""
    return [name for name in ("decord", "PIL") if importlib.util.find_spec(name) is None]


def conventional_clips(path: Path, frames: Sequence[int], crops: Sequence[Crop], size: int) -> list[Tensor]:
    """Decode one clip of a file and return a tensor for each view.

    Args:
        path: of the video.
        frames: T frame numbers.
        crops: one draw per view.
        size: side of the result, px.

    Returns:
        For each view (3, T, size, size) float32, normalised.
    """
    import decord  # noqa: PLC0415  a peer that need not be there
    from PIL.Image import fromarray  # noqa: PLC0415

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(str(path), num_threads=1)
    pictures = [fromarray(image) for image in reader.get_batch(list(frames)).asnumpy()]
    return [_view(pictures, crop, size) for crop in crops]


def _view(pictures: Sequence[Image], crop: Crop, size: int) -> Tensor:
    from PIL.Image import Resampling  # noqa: PLC0415

    width, height = pictures[0].size
    box = box_of(crop, width, height, size)
    edges = (box.x, box.y, box.x + box.width, box.y + box.height)
    scaled = [picture.crop(edges).resize((size, size), Resampling.BILINEAR) for picture in pictures]
    stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in scaled]))  # (T, size, size, 3)
    clip = stacked.permute(3, 0, 1, 2).contiguous().float().div(255)
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return clip.sub_(mean).div_(std)
