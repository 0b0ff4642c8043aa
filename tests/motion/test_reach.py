"""How far things may move from one sampled frame to the next before a source's median error exceeds 1 px."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from system.config import MotionSection
from system.core.pairs import FramePair
from system.core.seeds import Purpose, generator
from system.data.synthetic import texture
from system.motion.base import MotionSource, motion_source

SIZE = 224
# What docs/motion.md states, px between sampled frames of 224 px.
STATED = {"dis": 32, "frame_difference": 20}


def shifted(shift: int, seed: int) -> NDArray[np.uint8]:
    """Two frames whose whole content moves `shift` px to the right: (1, 2, SIZE, SIZE, 3)."""
    wide = texture(generator(seed, Purpose.SYNTHETIC, position=1000), SIZE, SIZE + 100)
    return np.stack([wide[:, 100 - step * shift : 100 - step * shift + SIZE] for step in (0, 1)])[None]


def median_error(source: MotionSource, shift: int, seed: int) -> float:
    flow = source(shifted(shift, seed), [FramePair(0, 1)])[0, 0].numpy()
    inside = flow[:, : SIZE - shift]  # what has not left the frame
    return float(np.median(np.hypot(inside[..., 0] - shift, inside[..., 1])))


def reach(motion: MotionSection) -> int:
    """The largest of the tried motions up to which every median error is under 1 px, for five textures."""
    source, far = motion_source(motion), 0
    for shift in (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48):
        if max(median_error(source, shift, seed) for seed in range(5)) >= 1:
            break
        far = shift
    return far


@pytest.mark.parametrize("name", STATED)
def test_the_reach_is_what_the_docs_state(name: str) -> None:
    found = reach(MotionSection.model_validate({"source": name}))
    assert found == STATED[name]
