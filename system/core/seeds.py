"""The only source of randomness: counter-based generators keyed by what a number is for.

A sample is a pure function of (run seed, epoch, position in the epoch, view), so there is no generator state to save,
and any worker can make any sample again.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream of random numbers is for; two purposes never share numbers."""

    GROUPS = 1
    WINDOW = 2
    START = 3
    CROP = 4
    MASK = 5
    SPARE = 6
    WEIGHTS = 7
    SYNTHETIC = 8
    DECODER_MASK = 9
    TOKENIZER = 10
    PHASE = 11


def generator(seed: int, purpose: Purpose, epoch: int = 0, position: int = 0, part: int = 0) -> np.random.Generator:
    """Return the generator of one purpose at one place of the plan.

    Args:
        seed: the run's seed, 0 <= seed < 2**63.
        purpose: what the numbers are for.
        epoch: epoch of the plan, from 0.
        position: place inside the epoch (a slot's position, a window's number).
        part: what is left to tell apart: the view of a clip, the attempt of a substitute.

    Returns:
        A fresh Philox generator. Its counter's lowest word starts at 0 and belongs to the generator, so two places
        can draw 2**64 numbers each before they meet.
    """
    return np.random.Generator(np.random.Philox(key=[seed, int(purpose)], counter=[0, part, position, epoch]))
