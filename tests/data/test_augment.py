from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from system.core.views import SquareCrop
from system.data.augment import (
    OFFSETS,
    PAIRS,
    SCALES,
    Box,
    Crop,
    CropDraw,
    ResizedCrop,
    box_of,
    crop_box,
    crop_from,
    crop_values,
    draw_crop,
    draw_resized_crop,
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


AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def resized(*tries: tuple[float, float], x: float = 0.5, y: float = 0.5) -> ResizedCrop:
    return ResizedCrop(tries, x, y, RATIO)


def test_a_resized_crop_has_its_share_of_the_area_and_its_shape() -> None:
    """A quarter of 320 x 240 at 4:3 is 160 x 120; the room is 161 x 121 places."""
    assert box_of(resized((0.25, 4 / 3)), 320, 240, 224) == Box(80, 60, 160, 120)
    assert box_of(resized((0.25, 4 / 3), x=0.0, y=0.999), 320, 240, 224) == Box(0, 120, 160, 120)


def test_the_first_try_that_fits_is_taken() -> None:
    """The whole area at 3:4 would be 240 x 320 of 320 x 240 px: too high."""
    assert box_of(resized((1.0, 3 / 4), (0.25, 4 / 3)), 320, 240, 224) == Box(80, 60, 160, 120)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((400, 200), Box(67, 0, 267, 200)),  # 2:1 is wider than 4:3
        ((200, 400), Box(0, 66, 200, 267)),
        ((220, 200), Box(0, 0, 220, 200)),  # 1.1 is between them
    ],
)
def test_where_no_try_fits_the_centre_is_taken(size: tuple[int, int], box: Box) -> None:
    too_large = resized(*[(1.0, 3 / 4 if size[0] > size[1] else 4 / 3)] * 10)
    found = box_of(too_large, *size, 224)
    assert (found.width, found.height) == (box.width, box.height)
    assert abs(found.x - box.x) <= 1 and abs(found.y - box.y) <= 1


def test_resized_crops_have_areas_and_shapes_within_their_ranges_and_lie_inside() -> None:
    generator = np.random.default_rng(0)
    boxes = [box_of(draw_resized_crop(generator, AREA, RATIO), 340, 256, 224) for _ in range(2000)]
    shares = np.array([box.width * box.height for box in boxes]) / (340 * 256)
    shapes = np.array([box.width / box.height for box in boxes])
    assert shares.min() > 0.079 and shares.max() <= 1
    assert shapes.min() > 0.74 and shapes.max() < 1.35
    # Uniform in the area where every shape fits, and in the logarithm of the shape.
    assert 0.45 < (shares[shares < 0.5] < 0.29).mean() < 0.55
    assert abs(np.log(shapes[shares < 0.5]).mean()) < 0.02
    assert all(box.x >= 0 and box.x + box.width <= 340 for box in boxes)
    assert all(box.y >= 0 and box.y + box.height <= 256 for box in boxes)
    assert len({(box.x, box.y) for box in boxes}) > 1500


def test_resized_crops_are_spread_as_torchvisions_are() -> None:
    """Means of area, shape and place, each within three of its deviations over 2,000 draws."""
    from torchvision.transforms import RandomResizedCrop  # slow to import

    torch.manual_seed(0)
    image, generator = torch.zeros(3, 256, 340), np.random.default_rng(1)
    theirs = np.array([RandomResizedCrop.get_params(image, list(AREA), list(RATIO)) for _ in range(2000)], float)
    boxes = [box_of(draw_resized_crop(generator, AREA, RATIO), 340, 256, 224) for _ in range(2000)]
    ours = np.array([(box.y, box.x, box.height, box.width) for box in boxes], float)
    errors = np.hypot(ours.std(0), theirs.std(0)) / np.sqrt(2000)
    assert (abs(ours.mean(0) - theirs.mean(0)) < 3.5 * errors).all()


def test_a_crop_survives_the_way_to_the_decode_child() -> None:
    drawn = draw_resized_crop(np.random.default_rng(0), AREA, RATIO)
    for crop in (drawn, CropDraw(3, 4), SquareCrop(1, 3)):
        assert crop_from(json.loads(json.dumps(crop_values(crop)))) == crop
