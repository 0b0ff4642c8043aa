"""What tells one clip from another: 64-bit numbers that add up to a step's, whatever the order and the ranks.

A clip is (slot, video, view, first frame). Its identity is those four integers, mixed; a step's is the sum of its
clips' modulo 2^64. So each rank adds up its own clips, the ranks' sums add up to the step's, and how a step was cut
does not matter. What a clip holds (its pixels, its mask) is mixed with its identity and added up the same way, so that
two clips that exchanged their pixels are noticed.
"""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from system.core.seeds import Purpose, generator

Words = NDArray[np.uint64]

# splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, fig. 16).
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(words: Words) -> Words:
    """Return a permutation of the 64-bit numbers in which every bit of the input reaches every bit of the output."""
    with np.errstate(over="ignore"):
        out = words + _STEP
        out = (out ^ (out >> np.uint64(30))) * _FIRST
        out = (out ^ (out >> np.uint64(27))) * _SECOND
    return out ^ (out >> np.uint64(31))


def clip_identities(
    slot: NDArray[np.int64], video_id: NDArray[np.int64], view: NDArray[np.int64], start: NDArray[np.int64]
) -> Words:
    """Return each clip's identity: four (B,) int64 -> (B,) uint64."""
    out = np.zeros(len(slot), np.uint64)
    for part in (slot, video_id, view, start):
        out = mix(out ^ part.astype(np.int64).view(np.uint64))
    return out


def with_content(identities: Words, content: NDArray[np.integer]) -> Words:
    """Mix what each clip holds, as a checksum, with its identity: (B,) uint64."""
    return mix(identities ^ mix(content.astype(np.uint64)))


def total(words: Words) -> int:
    """Add up 64-bit numbers modulo 2^64."""
    with np.errstate(over="ignore"):
        return int(words.sum(dtype=np.uint64))


def checksum(*arrays: NDArray[np.generic]) -> int:
    """Return the CRC-32 of the bytes of arrays, one after the other."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return crc


def chained(before: str, *numbers: int) -> str:
    """Return the next link of a hash chain: SHA-256 of the link before it and some numbers below 2^64, hexadecimal."""
    return hashlib.sha256(bytes.fromhex(before) + struct.pack(f"<{len(numbers)}Q", *numbers)).hexdigest()


# What a chain starts from.
ROOT = "0" * 64

# Bits of a step's masks that are kept where the masks depend on the device: four words.
SAMPLED = 256


def sample_places(step: int, num_clips: int, tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which mask bits of a step are kept: the clip and the token of each, two (256,) int64.

    Clips are numbered in the plan's order: (slot - the step's first slot) * views + view.

    Args:
        step: whose masks.
        num_clips: of the whole step, the skipped ones among them.
        tokens: of one clip.
    """
    drawn = generator(0, Purpose.AUDIT, position=step)
    return drawn.integers(num_clips, size=SAMPLED), drawn.integers(tokens, size=SAMPLED)


def sampled_bits(step: int, num_clips: int, clips: NDArray[np.int64], visible: NDArray[np.bool_]) -> Words:
    """Return the kept mask bits of some of a step's clips: (4,) uint64; those of all other clips are 0.

    No two ranks have the same clip, so their words add up to the step's.

    Args:
        step: whose masks.
        num_clips: of the whole step.
        clips: (B,) int64, numbers of the given clips in the step; those of weight 0 are left out by the caller.
        visible: (B, N), their masks.
    """
    wanted, tokens = sample_places(step, num_clips, visible.shape[1])
    row = np.full(num_clips, -1)
    row[clips] = np.arange(len(clips))
    there = row[wanted] >= 0
    bits = np.zeros(SAMPLED, np.bool_)
    bits[there] = visible[row[wanted[there]], tokens[there]]
    words: Words = np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)
    return words


def equal_share(one: Words, other: Words, step: int, num_clips: int, kept: NDArray[np.int64], tokens: int) -> float:
    """Return the share of kept mask bits that agree, of the clips `kept`; nan if none of them are those clips'."""
    wanted, _ = sample_places(step, num_clips, tokens)
    of_kept = np.isin(wanted, kept)
    bits = [np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little") for words in (one, other)]
    return float((bits[0] == bits[1])[of_kept].mean()) if of_kept.any() else float("nan")
