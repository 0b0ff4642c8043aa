"""Crops: the multi-scale one of VideoMAE's pre-training, the resized one of fine-tuning, the squares of test views.

Decided from a sample's draws, applied when a frame's size is known. No flip and no colour jitter in pre-training, on
any dataset, as in VideoMAE's loaders; those of fine-tuning are in clip_augment.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from system.core.views import SquareCrop

# Sides of the crop as shares of the shorter side; a crop's width and height are neighbours in this list.
SCALES = (1.0, 0.875, 0.75, 0.66)
# The ten (width, height) pairs of scales that differ by at most one place.
PAIRS = tuple((w, h) for w in range(len(SCALES)) for h in range(len(SCALES)) if abs(w - h) <= 1)
# Offsets in quarters of the room that is left: corners, centre, edges' middles, quarter points (x, y).
OFFSETS = (
    (0, 0),
    (4, 0),
    (0, 4),
    (4, 4),
    (2, 2),
    (0, 2),
    (4, 2),
    (2, 4),
    (2, 0),
    (1, 1),
    (3, 1),
    (1, 3),
    (3, 3),
)
# A side that comes this near to the clip's own is taken as it is.
SNAP_PX = 3
# Shapes that a resized crop tries before it takes the centre.
TRIES = 10


@dataclass(frozen=True, slots=True)
class CropDraw:
    """Which of the crops a view takes: an index into `PAIRS` and one into `OFFSETS`."""

    pair: int
    offset: int


@dataclass(frozen=True, slots=True)
class ResizedCrop:
    """A crop of random area and shape, scaled to a square (torchvision's RandomResizedCrop).

    Attributes:
        tries: ten of (share of the frame's area, width to height); the first that fits into the frame is taken.
        x: where the crop lies in the room that is left, in [0, 1).
        y: the same from top to bottom.
        ratios: the least and the greatest width to height; the centre crop that is taken where no try fits has them.
    """

    tries: tuple[tuple[float, float], ...]
    x: float
    y: float
    ratios: tuple[float, float]


# What a view can be cut by.
Crop = CropDraw | SquareCrop | ResizedCrop


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of a frame, px: x and y of its corner, width and height."""

    x: int
    y: int
    width: int
    height: int


def draw_crop(generator: np.random.Generator) -> CropDraw:
    """Draw one of the 10 x 13 crops."""
    return CropDraw(int(generator.integers(len(PAIRS))), int(generator.integers(len(OFFSETS))))


def draw_resized_crop(
    generator: np.random.Generator, area: tuple[float, float], ratios: tuple[float, float]
) -> ResizedCrop:
    """Draw a crop of random area and shape.

    Args:
        generator: of the view.
        area: least and greatest share of the frame's area; uniform between them.
        ratios: least and greatest width to height; uniform in its logarithm.
    """
    shares = generator.uniform(*area, TRIES).tolist()
    shapes = np.exp(generator.uniform(math.log(ratios[0]), math.log(ratios[1]), TRIES)).tolist()
    return ResizedCrop(tuple(zip(shares, shapes, strict=True)), generator.random(), generator.random(), ratios)


def crop_box(draw: CropDraw, width: int, height: int, size: int) -> Box:
    """Return the rectangle that a draw means in a frame.

    Args:
        draw: the crop's draw.
        width: of the frame, px.
        height: of the frame, px.
        size: side of the clip that the crop will be scaled to, px.
    """
    base = min(width, height)
    sides = [int(base * scale) for scale in SCALES]
    sides = [size if abs(side - size) < SNAP_PX and size <= base else side for side in sides]
    w, h = (max(1, sides[index]) for index in PAIRS[draw.pair])
    right, down = OFFSETS[draw.offset]
    return Box(right * ((width - w) // 4), down * ((height - h) // 4), w, h)


def square_box(crop: SquareCrop, width: int, height: int) -> Box:
    """Return the square that a test view is in a frame of so many px."""
    side = min(width, height)
    room = max(width, height) - side
    at = crop.place * room // (crop.places - 1) if crop.places > 1 else room // 2
    return Box(at, 0, side, side) if width >= height else Box(0, at, side, side)


def resized_box(crop: ResizedCrop, width: int, height: int) -> Box:
    """Return the rectangle that a resized crop is in a frame of so many px.

    Where no try fits, that is the largest centre crop of a permitted shape.
    """
    for share, ratio in crop.tries:
        w, h = (round(math.sqrt(share * width * height * shape)) for shape in (ratio, 1 / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(crop.x * (width - w + 1)), int(crop.y * (height - h + 1)), w, h)
    least, greatest = crop.ratios
    w = min(width, max(1, round(height * greatest)))
    h = min(height, max(1, round(width / least)))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def box_of(crop: Crop, width: int, height: int, size: int) -> Box:
    """Return the rectangle that a crop means in a frame; arguments as `crop_box`."""
    if isinstance(crop, SquareCrop):
        return square_box(crop, width, height)
    if isinstance(crop, ResizedCrop):
        return resized_box(crop, width, height)
    return crop_box(crop, width, height, size)


def crop_values(crop: Crop) -> list[Any]:
    """Return a crop as plain values."""
    if isinstance(crop, SquareCrop):
        return ["square", crop.place, crop.places]
    if isinstance(crop, ResizedCrop):
        return ["resized", crop.tries, crop.x, crop.y, crop.ratios]
    return ["draw", crop.pair, crop.offset]


def crop_from(values: Sequence[Any]) -> Crop:
    """Return the crop that plain values describe."""
    kind, *rest = values
    if kind == "resized":
        tries, x, y, (least, greatest) = rest
        return ResizedCrop(tuple((share, ratio) for share, ratio in tries), x, y, (least, greatest))
    return SquareCrop(*rest) if kind == "square" else CropDraw(*rest)
