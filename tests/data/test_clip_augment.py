from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from system.data.augment import Box
from system.data.clip_augment import (
    ERASED_AREA,
    ERASED_RATIO,
    MEAN,
    STD,
    Augmentation,
    erase,
    erased_box,
    rand_augment,
    same_for_all_frames,
)
from system.data.scale import Frames

WORD = "rand-m7-n4-mstd0.5-inc1"
NOTHING = Augmentation(None, 0.0, 0.0)


def still(frames: int = 6) -> Frames:
    """The same picture in all frames: whatever differs afterwards was done differently."""
    rng = np.random.default_rng(0)
    picture = np.repeat(np.repeat(rng.integers(0, 256, (4, 4, 3), np.uint8), 8, 0), 8, 1)
    return np.stack([picture] * frames)


def augmented(seed: int, how: Augmentation, clip: Frames | None = None) -> Frames:
    made = still() if clip is None else clip.copy()
    how(made, np.random.default_rng(seed))
    return made


@pytest.mark.parametrize("seed", range(20))
def test_rand_augment_does_the_same_to_every_frame_of_a_clip(seed: int) -> None:
    made = augmented(seed, Augmentation(WORD, 0, 0))
    assert (made == made[0]).all()


def test_rand_augment_of_timm_on_frames_as_they_come_would_do_another_thing_to_each() -> None:
    random.seed(0)
    np.random.seed(0)
    frames = [np.asarray(rand_augment(WORD)(Image.fromarray(frame))) for frame in still()]
    assert len({frame.tobytes() for frame in frames}) > 3


def test_two_clips_are_augmented_differently_and_the_same_draws_do_the_same() -> None:
    made = {augmented(seed, Augmentation(WORD, 0, 0)).tobytes() for seed in range(20)}
    assert len(made) > 15
    assert (augmented(3, Augmentation(WORD, 0, 0)) == augmented(3, Augmentation(WORD, 0, 0))).all()


def test_a_moving_clip_keeps_its_motion() -> None:
    """Frame t of an augmented clip is frame t augmented alone with the clip's seed."""
    clip = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3), np.uint8)
    whole = clip.copy()
    same_for_all_frames(whole, rand_augment(WORD), 5)
    for number in range(4):
        alone = clip[number : number + 1].copy()
        same_for_all_frames(alone, rand_augment(WORD), 5)
        assert (alone[0] == whole[number]).all()


def test_the_global_generators_are_as_before_even_if_a_transform_fails() -> None:
    states = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]

    def fails(_image: Image.Image) -> Image.Image:
        raise RuntimeError("no such image")

    augmented(0, Augmentation(WORD, 0.5, 0.5))
    with pytest.raises(RuntimeError):
        same_for_all_frames(still(), fails, 0)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # type: ignore[index]


def test_what_is_drawn_for_mirror_and_rectangle_does_not_depend_on_rand_augment() -> None:
    with_both = augmented(4, Augmentation("rand-m0-n1-p0", 1.0, 1.0))
    assert (with_both == augmented(4, Augmentation(None, 1.0, 1.0))).all()


def test_a_mirror_image_is_turned_over_its_width_in_all_frames() -> None:
    clip = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    assert (augmented(0, Augmentation(None, 1.0, 0), clip) == clip[:, :, ::-1]).all()
    assert (augmented(0, NOTHING, clip) == clip).all()


def test_shares_are_kept() -> None:
    clip = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    flipped = [bool((augmented(seed, Augmentation(None, 0.3, 0), clip) != clip).any()) for seed in range(1000)]
    erased = [bool((augmented(seed, Augmentation(None, 0, 0.25), clip) != clip).any()) for seed in range(1000)]
    assert 0.25 < np.mean(flipped) < 0.35
    assert 0.2 < np.mean(erased) < 0.3


def test_the_same_rectangle_is_erased_in_all_frames_with_noise_of_each_one() -> None:
    clip = np.full((5, 40, 40, 3), 7, np.uint8)
    erase(clip, np.random.default_rng(3))
    changed = (clip != 7).any(-1)
    rows, columns = np.flatnonzero(changed.any((0, 2))), np.flatnonzero(changed.any((0, 1)))
    inside = changed[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert inside.mean() > 0.95  # a value of 7 comes by chance
    assert changed.sum() == inside.sum()
    assert (clip[0] != clip[1]).any()


def test_noise_is_normal_where_colours_are_normalised_as_far_as_a_byte_goes() -> None:
    clip = np.zeros((64, 64, 64, 3), np.uint8)
    generator = np.random.default_rng(2)
    erase(clip, generator)
    shown = np.asarray(clip.any(-1)).all(0)
    values = clip[:, shown].reshape(-1, 3)
    normalised = (values / 255 - MEAN) / STD
    assert abs(normalised.mean(0)).max() < 0.05
    assert (abs(normalised.std(0) - 0.97) < 0.03).all()  # less than 1: the tails are cut off


def test_erased_rectangles_have_the_areas_and_shapes_of_timms() -> None:
    generator = np.random.default_rng(0)
    boxes = [box for _ in range(2000) if (box := erased_box(generator, 224, 224))]
    areas = np.array([box.width * box.height for box in boxes]) / 224**2
    shapes = np.array([box.height / box.width for box in boxes])
    assert len(boxes) > 1990
    assert ERASED_AREA[0] * 0.95 < areas.min() and areas.max() < ERASED_AREA[1] * 1.03
    assert ERASED_RATIO[0] * 0.9 < shapes.min() and shapes.max() < ERASED_RATIO[1] * 1.1
    assert abs(np.log(shapes).mean()) < 0.06
    assert all(box.x + box.width <= 224 and box.y + box.height <= 224 for box in boxes)
    assert max(box.y + box.height for box in boxes) == 224


def test_a_rectangle_that_would_not_fit_is_not_erased() -> None:
    assert erased_box(np.random.default_rng(0), 1, 1) is None
    assert isinstance(erased_box(np.random.default_rng(0), 9, 9), Box)
