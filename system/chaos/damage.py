"""Damage to a file that keeps its size, and the proof that no clip can be decoded from what is left."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from system.core.clip import clip_span
from system.data.clips import Choice, ClipMaker
from system.data.index import VideoRow
from system.data.sandbox import Sandbox
from system.errors import DecodeError, SystemFault

Damage = Literal["zeroed middle", "random bytes", "torn tail"]
DAMAGES: tuple[Damage, ...] = get_args(Damage)
# Share of a file that is damaged, tried one after the other until nothing of it decodes.
SHARES = (0.5, 0.75, 0.9, 1.0)
# Places in a video at which clips are tried.
PLACES = 6


def damaged(data: bytes, kind: Damage, amount: float, seed: int) -> bytes:
    """Return a file's bytes with a share of them damaged; as many as before.

    Args:
        data: the file.
        kind: zeros or random bytes about its middle, or zeros from some place to its end, as a torn write leaves.
        amount: the share, in (0, 1].
        seed: of the random bytes.
    """
    length = round(amount * len(data))
    start = len(data) - length if kind == "torn tail" else (len(data) - length) // 2
    wrong = random.Random(seed).randbytes(length) if kind == "random bytes" else bytes(length)
    return data[:start] + wrong + data[start + length :]


def starts(video: VideoRow, span: int, places: int = PLACES) -> list[int]:
    """Return first frames at which clips are tried: the first possible, the last possible, and some between."""
    last = max(0, video.num_frames - span)
    return sorted({round(last * place / (places - 1)) for place in range(places)})


def decodes(sandbox: Sandbox, maker: ClipMaker, video: VideoRow, data: bytes) -> bool:
    """Say whether any clip of a video can be decoded from these bytes, in a decode child."""
    spec = maker.spec
    for start in starts(video, clip_span(spec.grid.num_frames, spec.stride, spec.extra)):
        outcome = sandbox.one(maker.job(Choice(0, 0, video, start), ((0, data),)))
        if not isinstance(outcome, DecodeError):
            return True
    return False


def damage_for_certain(
    sandbox: Sandbox, maker: ClipMaker, video: VideoRow, data: bytes, kind: Damage, seed: int
) -> tuple[bytes, float]:
    """Damage a video until no clip of it decodes.

    Returns:
        Its bytes, and the share of them that was damaged.
    """
    for amount in SHARES:
        wrong = damaged(data, kind, amount, seed)
        if not decodes(sandbox, maker, video, wrong):
            return wrong, amount
    raise SystemFault(f"{video.uri} still decodes when all of its bytes are damaged")


def choose(num_videos: int, amount: float, seed: int) -> Sequence[int]:
    """Return the numbers of the videos that are damaged: the share of them, at least one of a share above 0."""
    count = max(1, round(amount * num_videos)) if amount else 0
    return sorted(random.Random(f"damage/{seed}").sample(range(num_videos), min(count, num_videos)))
