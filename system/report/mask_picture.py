"""A picture of one sequence: frames with the true masks over those that were found.

Frames are (H, W, 3) uint8 RGB, masks (H, W) uint8 numbers of objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from system.data.indexed_png import object_colours
from system.evaluate.mask_scores import contour

Image = NDArray[np.uint8]

# Height of a frame on the picture, px, and the gap between frames.
FRAME_PX, GAP_PX = 200, 4
_BAR_PX = 22


def overlay(frame: Image, mask: Image) -> Image:
    """Tint objects with their colours and draw a light line around each: (H, W, 3) uint8."""
    tinted = frame // 2 + object_colours()[mask] // 2
    shown = np.where(mask[..., None] > 0, tinted, frame)
    for number in np.unique(mask[mask > 0]):
        shown[contour(mask == number)] = 255
    return np.asarray(shown, np.uint8)


def shown_frames(num_frames: int, wanted: int) -> list[int]:
    """Return the frames of a picture: evenly from the first to the last, each once."""
    return sorted({round(number) for number in np.linspace(0, num_frames - 1, min(wanted, num_frames))})


def _bar(width: int, text: str) -> Image:
    canvas = np.full((_BAR_PX, width, 3), 255, np.uint8)
    cv2.putText(canvas, text, (4, _BAR_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (20, 20, 20), 1, cv2.LINE_AA)
    return canvas


def _scaled(image: Image) -> Image:
    width = max(1, round(image.shape[1] * FRAME_PX / image.shape[0]))
    return np.asarray(cv2.resize(image, (width, FRAME_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _row(images: Sequence[Image]) -> Image:
    gap = np.full((FRAME_PX, GAP_PX, 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (_scaled(image), gap)], 1)


def mask_picture(frames: Sequence[Image], truths: Sequence[Image], found: Sequence[Image], text: str) -> bytes:
    """Draw some frames of a sequence.

    Args:
        frames: the frames that are shown, in order.
        truths: their true masks.
        found: the masks that were found.
        text: written above.

    Returns:
        A PNG file's bytes.
    """
    rows = [_row([overlay(*pair) for pair in zip(frames, masks, strict=True)]) for masks in (truths, found)]
    bars = [_bar(rows[0].shape[1], line) for line in (f"{text}: true masks", "found masks")]
    picture = np.concatenate([bars[0], rows[0], bars[1], rows[1]], 0)
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()
