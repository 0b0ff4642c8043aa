"""A few clips of a run, decoded as its decode actors do it: to see whether the data can be read, and how fast."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from system.core.seeds import Purpose, generator
from system.data.clips import Choice, ClipMaker
from system.data.reading import fetch
from system.data.sandbox import Answer, Sandbox
from system.errors import DecodeError


@dataclass(frozen=True, slots=True)
class Decoded:
    """One clip of a sample, all its views.

    Attributes:
        choice: which one.
        outcome: its frames, valid until the outcome after the next; or why there are none.
        num_bytes: that were fetched for it.
        fetch_s: its share of the time in which the bytes of all were fetched, side by side.
        decode_s: from the outcome before it to its own.
    """

    choice: Choice
    outcome: Answer | DecodeError
    num_bytes: int
    fetch_s: float
    decode_s: float


def spread_slots(num_videos: int, count: int, seed: int) -> list[int]:
    """Draw slots of a run whose videos are spread over the index, in random order.

    One of each of `count` equal parts of the first epoch; where it has fewer slots, of as many epochs as it takes.

    Args:
        num_videos: of the index.
        count: how many slots.
        seed: of the run.
    """
    draws = generator(seed, Purpose.PROBE)
    edges = np.linspace(0, max(num_videos, count), count + 1).astype(np.int64)
    slots = edges[:-1] + (draws.random(count) * np.diff(edges)).astype(np.int64)
    return [int(slot) for slot in draws.permutation(slots)]


def decoded_sample(maker: ClipMaker, choices: Sequence[Choice], sandbox: Sandbox) -> Iterator[Decoded]:
    """Fetch the bytes of choices at once, decode them in a child, and yield each one's outcome in their order.

    Raises:
        DataError: if storage refuses.
        StorageFault: if storage does not answer.
        RecipeError: if the decoder that the recipe names cannot be loaded.
    """
    began = time.perf_counter()
    fetched = fetch([maker.reading(choice) for choice in choices])
    before = time.perf_counter()
    share = (before - began) / max(1, len(choices))
    pairs = list(zip(choices, fetched, strict=True))
    outcomes = sandbox.run([maker.job(choice, got) for choice, got in pairs if not isinstance(got, DecodeError)])
    for choice, got in pairs:
        if isinstance(got, DecodeError):
            yield Decoded(choice, got, 0, share, 0.0)
            continue
        outcome = next(outcomes)
        now = time.perf_counter()
        yield Decoded(choice, outcome, sum(len(data) for _, data in got), share, now - before)
        before = now
