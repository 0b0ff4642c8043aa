from __future__ import annotations

import numpy as np
import pytest

from system.core.views import SquareCrop
from system.data.augment import (
    OFFSETS,
    PAIRS,
    SCALES,
    Box,
    Crop,
    CropDraw,
    box_of,
    crop_box,
    crop_from,
    crop_values,
    draw_crop,
)


def test_there_are_ten_pairs_of_neighbouring_scales_and_thirteen_offsets() -> None:
    assert len(PAIRS) == 10
    assert len(set(OFFSETS)) == 13


def test_sides_are_shares_of_the_shorter_side() -> None:
    boxes = {crop_box(CropDraw(pair, 0), 640, 320, 224) for pair in range(10)}
    assert {box.width for box in boxes} == {int(320 * scale) for scale in SCALES}


def test_a_side_near_the_clips_own_is_taken_as_it_is() -> None:
    assert crop_box(CropDraw(0, 0), 300, 226, 224).width == 224
    assert crop_box(CropDraw(0, 0), 300, 227, 224).width == 227


@pytest.mark.parametrize("offset", range(13))
@pytest.mark.parametrize("size", [(640, 272), (17, 1000), (224, 224)])
def test_every_crop_lies_inside_of_the_frame(offset: int, size: tuple[int, int]) -> None:
    for pair in range(10):
        box = crop_box(CropDraw(pair, offset), *size, 224)
        assert box.x >= 0
        assert box.x + box.width <= size[0]
        assert box.y >= 0
        assert box.y + box.height <= size[1]


def test_the_centre_is_the_fifth_offset() -> None:
    box = crop_box(CropDraw(0, OFFSETS.index((2, 2))), 640, 320, 224)
    assert (box.x, box.y, box.width, box.height) == (160, 0, 320, 320)


def test_draws_reach_all_crops() -> None:
    generator = np.random.default_rng(0)
    assert len({draw_crop(generator) for _ in range(3000)}) == 130


def test_three_squares_cover_the_long_side_from_end_to_end() -> None:
    wide = [box_of(SquareCrop(place, 3), 340, 256, 224) for place in range(3)]
    assert wide == [Box(0, 0, 256, 256), Box(42, 0, 256, 256), Box(84, 0, 256, 256)]
    high = [box_of(SquareCrop(place, 3), 240, 320, 224) for place in range(3)]
    assert high == [Box(0, 0, 240, 240), Box(0, 40, 240, 240), Box(0, 80, 240, 240)]


def test_one_square_is_the_centre() -> None:
    assert box_of(SquareCrop(0, 1), 340, 256, 224) == Box(42, 0, 256, 256)


@pytest.mark.parametrize("crop", [SquareCrop(1, 3), CropDraw(4, 12)])
def test_a_crop_comes_back_from_its_plain_values(crop: Crop) -> None:
    assert crop_from(crop_values(crop)) == crop
