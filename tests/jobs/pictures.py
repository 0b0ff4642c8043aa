"""Pictures that runs of the tiny recipe leave."""

from __future__ import annotations

import cv2
import numpy as np

from system import storage


def rows_of_images(uri: str) -> int:
    """Return how many rows a run's picture has for each of its two clips: frames, masks, and what the method predicts.

    Raises:
        AssertionError: if it is none, or nothing is on it.
    """
    picture = cv2.imdecode(np.frombuffer(storage.read(uri), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.std() > 10
    return int(picture.shape[0]) // 32 // 2
