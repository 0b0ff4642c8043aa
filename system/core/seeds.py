"""The only source of randomness: counter-based generators keyed by what a number is for.

A sample is a pure function of (run seed, epoch, position in the epoch, view), so there is no generator state to save,
and any worker can make any sample again.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


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
    AUDIT = 12
    PROBE = 13
    AUGMENT = 14
    MIX = 15
    FORWARD = 16


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


Words = NDArray[np.uint64]

# Philox 4x64 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the multipliers
# of its rounds, and what each round adds to the key.
_MULTIPLIERS = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def _product(words: Words, factor: np.uint64) -> tuple[Words, Words]:
    """Multiply 64-bit numbers and return the high and the low half of each product."""
    low, high = words & _LOW, words >> _HALF
    factor_low, factor_high = factor & _LOW, factor >> _HALF
    middle = high * factor_low + (low * factor_low >> _HALF)
    other = low * factor_high + (middle & _LOW)
    return high * factor_high + (middle >> _HALF) + (other >> _HALF), words * factor


def first_draws(seed: int, purpose: Purpose, epoch: Words, position: Words, part: int = 0) -> NDArray[np.float64]:
    """Return what `generator(seed, purpose, epoch, position, part).random()` gives at many places: (n,) in [0, 1).

    The same numbers, some ten times as fast as a generator for each place.

    Args:
        seed: the run's seed.
        purpose: what the numbers are for.
        epoch: (n,) uint64.
        position: (n,) uint64.
        part: the same for all.
    """
    # The generator counts up before it draws.
    one, two = np.full(len(epoch), 1, np.uint64), np.full(len(epoch), part, np.uint64)
    three, four = position, epoch
    for number in range(_ROUNDS):
        keys = [np.uint64((key + number * add) % 2**64) for key, add in zip((seed, purpose), _KEY_STEPS, strict=True)]
        (high, low), (other_high, other_low) = _product(one, _MULTIPLIERS[0]), _product(three, _MULTIPLIERS[1])
        one, two, three, four = other_high ^ two ^ keys[0], other_low, high ^ four ^ keys[1], low
    return (one >> np.uint64(11)).astype(np.float64) * 2.0**-53
