"""What fine-tuning changes of a clip after its crop: RandAugment, then a mirror image, then an erased rectangle.

Each is the same for all frames of a clip, which is what image libraries do not do: another angle in each frame would be
a motion that the video does not have. VideoMAE's loaders augment before they crop; here the crop is first, since the
decode child makes it and an operation on 224 x 224 px is cheaper than one on the whole frame.

T frames of H x W px, uint8 RGB.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from system.data.augment import Box
from system.data.scale import Frames
from system.lazy import lazy

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = lazy("PIL.Image")

# timm's RandomErasing: share of the frame's area and width to height of what is erased, from and to; tries.
ERASED_AREA = (0.02, 1 / 3)
ERASED_RATIO = (0.3, 1 / 0.3)
ERASE_TRIES = 10
# The colours by which VideoMAE normalises: what "noise of deviation 1" is in them (ImageNet's).
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)

# An image to an image, by the global generators of `random` and `numpy.random`.
Transform = Callable[["Image.Image"], "Image.Image"]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How clips are changed.

    Attributes:
        rand_augment: timm's word for RandAugment; None: none.
        flip: share of clips that are mirrored.
        erase: share of clips of which a rectangle is erased.
    """

    rand_augment: str | None
    flip: float
    erase: float

    def __call__(self, clip: Frames, generator: np.random.Generator) -> None:
        """Change a clip, in its place.

        Args:
            clip: (T, H, W, 3).
            generator: of this clip alone; what is drawn does not depend on what the clip shows.
        """
        seed = int(generator.integers(2**32))
        flips, erases = (generator.random(2) < (self.flip, self.erase)).tolist()
        if self.rand_augment is not None:
            same_for_all_frames(clip, rand_augment(self.rand_augment), seed)
        if flips:
            clip[:] = clip[:, :, ::-1].copy()
        if erases:
            erase(clip, generator)


@cache
def rand_augment(word: str) -> Transform:
    """Return timm's RandAugment, with the cubic interpolation that VideoMAE's fine-tuning asks of it."""
    hparams = {"img_mean": (128, 128, 128), "interpolation": Image.Resampling.BICUBIC}
    transform: Transform = _timm().rand_augment_transform(word, hparams)
    return transform


def _timm() -> ModuleType:
    """Load timm's file of augmentations by itself: the package would import torch and torchvision, 4 s and 690 MB."""
    package = importlib.util.find_spec("timm")
    places = package.submodule_search_locations if package is not None else None
    path = Path(next(iter(places or ["timm"]))) / "data" / "auto_augment.py"
    spec = importlib.util.spec_from_file_location("system_timm_auto_augment", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        return importlib.import_module("timm.data.auto_augment")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same_for_all_frames(clip: Frames, transform: Transform, seed: int) -> None:
    """Put each frame of a clip, in its place, through a transform that draws the same numbers each time.

    Args:
        clip: (T, H, W, 3).
        transform: draws from the global generators, whose states are as before afterwards.
        seed: below 2^32.
    """
    with _global_generators() as begin:
        for frame in clip:
            begin(seed)
            frame[:] = np.asarray(transform(Image.fromarray(frame)))


@contextmanager
def _global_generators() -> Iterator[Callable[[int], None]]:
    """Give what seeds the global generators, and put them back."""
    states: tuple[Any, Any] = (random.getstate(), np.random.get_state())

    def begin(seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)

    try:
        yield begin
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def erased_box(generator: np.random.Generator, height: int, width: int) -> Box | None:
    """Draw the rectangle that is erased, as timm's RandomErasing does; None if ten tries give none that fits."""
    for _ in range(ERASE_TRIES):
        area = generator.uniform(*ERASED_AREA) * height * width
        ratio = math.exp(generator.uniform(*np.log(ERASED_RATIO)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < h < height and 0 < w < width:
            y, x = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            return Box(x, y, w, h)
    return None


def erase(clip: Frames, generator: np.random.Generator) -> None:
    """Put noise into one rectangle of all frames of a clip, in its place.

    Each value is normal of deviation 1 where colours are normalised (timm's mode `pixel`), brought back to 0 to 255: so
    it is cut off at -1.8 to -2.1 and 2.2 to 2.6 deviations, where uint8 ends.

    Args:
        clip: (T, H, W, 3).
        generator: of this clip.
    """
    box = erased_box(generator, clip.shape[1], clip.shape[2])
    if box is None:
        return
    part = clip[:, box.y : box.y + box.height, box.x : box.x + box.width]
    noise = generator.standard_normal(part.shape, np.float32)
    part[:] = np.clip((noise * STD + MEAN) * 255 + 0.5, 0, 255).astype(np.uint8)
