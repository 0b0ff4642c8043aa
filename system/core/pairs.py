"""Which frames of a clip flow is wanted between. Plain Python: recipes are validated with it."""

from __future__ import annotations

from typing import NamedTuple


class FramePair(NamedTuple):
    """Flow is wanted from frame `start` to frame `end` of a clip (indexes of sampled frames)."""

    start: int
    end: int


def pairs_toward(base: int, num_frames: int) -> tuple[FramePair, ...]:
    """Return the pairs that carry a map outward from frame `base`: each frame looks at its neighbour nearer to it.

    Pair p lies between frames p and p + 1, so a clip of T frames has T - 1 of them.
    """
    return tuple(FramePair(p, p + 1) if p < base else FramePair(p + 1, p) for p in range(num_frames - 1))
