"""What storage, decoding and masks do on a sample of the user's videos: the stages of a run on one core, without Ray.

V views of a slot, T frames and E extra ones, R frame pairs, N tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from system.benchmark.timing import one_core
from system.benchmark.torch_work import threads
from system.data.assemble import clip_bytes, clip_maker, flow_device, limits_of, masker, masks_beside_decoding
from system.data.clips import Choice, ClipMaker
from system.data.columns import Batch
from system.data.index import VideoRow
from system.data.labelling import labeller
from system.data.masking import Masker
from system.data.sample import Decoded, decoded_sample, spread_slots
from system.data.sandbox import Sandbox
from system.data.scale import Frames
from system.errors import DataError, DecodeError
from system.planning.rates import Rate, mean_rate
from system.recipe import Recipe

# Slots of a sample, at most, and how many are fetched at once: as many requests as a read actor has in flight.
SAMPLE = 64
TOGETHER = 16
# Clips that masks and steps are measured on.
KEPT = 8


@dataclass(frozen=True, slots=True)
class Clip:
    """One decoded slot.

    Attributes:
        slot: its number.
        frames: (V, T + E, H, W, 3) uint8.
        flow: (V, R, cells, cells, 2), from the stream's vectors where they are wanted and it has some.
    """

    slot: int
    frames: Frames
    flow: NDArray[np.int16] | None


@dataclass
class DataFound:
    """What a sample of the videos says.

    Attributes:
        fetch_s: of each slot, its share of the time in which it was fetched with others.
        decode_s: of each slot that was decoded, on one core.
        num_bytes: fetched for each slot.
        videos: whose clips were decoded.
        clips: the first few of them.
        bad: videos that could not be, with their reasons.
    """

    fetch_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)
    num_bytes: list[int] = field(default_factory=list)
    videos: list[VideoRow] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """How many slots were tried."""
        return len(self.decode_s) + len(self.bad)

    def take(self, found: Decoded) -> None:
        """Note a clip."""
        if isinstance(found.outcome, DecodeError):
            self.bad.append(f"{found.choice.video.name}: {found.outcome.reason}")
            return
        assert found.outcome.frames is not None
        frames = found.outcome.frames.copy()  # as a decode actor copies it into its block
        self.fetch_s.append(found.fetch_s)
        self.decode_s.append(found.decode_s)
        self.num_bytes.append(found.num_bytes)
        self.videos.append(found.choice.video)
        if len(self.clips) < KEPT:
            self.clips.append(Clip(found.choice.slot, frames, found.outcome.flow))

    def storage(self, views: int) -> Rate:
        """Return what one read actor fetches."""
        rate, error = mean_rate(self.fetch_s, views)
        speed = sum(self.num_bytes) / sum(self.fetch_s) / 1e6
        return Rate(rate, f"{np.mean(self.num_bytes) / 1e6:.2g} MB a video at {speed:.0f} MB/s", error)

    def decode(self, views: int) -> Rate:
        """Return what one core decodes."""
        rate, error = mean_rate(self.decode_s, views)
        names = len({video.video_id for video in self.videos})
        return Rate(rate, f"{len(self.decode_s)} draws of {names} videos, in a decode child", error)


@contextmanager
def decoding(recipe: Recipe) -> Iterator[Sandbox]:
    """Give a decode child that shares one core with this process, as on a machine that is full of decode actors."""
    with one_core(), closing(Sandbox(recipe.data.views * clip_bytes(recipe), limits_of(recipe))) as sandbox:
        yield sandbox


def decode_within(
    maker: ClipMaker, choices: Sequence[Choice], sandbox: Sandbox, seconds: float, *, turn: int = 1
) -> DataFound:
    """Fetch and decode choices until time is up, at least one; the first one is decoded once before it counts.

    Where none can be decoded it ends then as well, after `TOGETHER` of them.

    Args:
        maker: of the clips.
        choices: which ones.
        sandbox: with the child that decodes.
        seconds: after which no further one counts.
        turn: whole turns of so many count.

    Raises:
        DataError: if none of them can be decoded, or storage refuses.
    """
    list(decoded_sample(maker, choices[:1], sandbox))  # the child starts, and so do connections
    found, until = DataFound(), time.perf_counter() + seconds
    groups = (choices[first : first + TOGETHER] for first in range(0, len(choices), TOGETHER))
    for each in chain.from_iterable(decoded_sample(maker, group, sandbox) for group in groups):
        found.take(each)
        enough = found.decode_s or found.tried >= TOGETHER  # a bad one may be the first of many good ones
        if enough and time.perf_counter() > until and found.tried % turn == 0:
            break
    if not found.decode_s:
        raise DataError(f"none of {found.tried} sampled videos can be decoded; the first: {found.bad[0]}")
    return found


def probe_data(recipe: Recipe, index_uri: str, seconds: float) -> tuple[ClipMaker, DataFound]:
    """Fetch and decode clips of a run that are spread over its index.

    Raises:
        DataError: if none of them can be decoded, or storage refuses.
    """
    maker = clip_maker(recipe, index_uri)
    slots = spread_slots(maker.plan.num_videos, SAMPLE, recipe.run.seed)
    with decoding(recipe) as sandbox:
        return maker, decode_within(maker, [maker.choose(slot) for slot in slots], sandbox, seconds)


def mask_device(recipe: Recipe) -> str | None:
    """Return the device that masks are made on in a run; None: a GPU, and there is none here."""
    if flow_device(recipe) == "cpu":
        return "cpu"
    return "cuda" if torch.cuda.is_available() else None


def probe_masks(
    recipe: Recipe, maker: ClipMaker, clips: Sequence[Clip], device: str, seconds: float
) -> tuple[Rate, Batch]:
    """Make the masks of clips, over and over until time is up, and return the rate and a block of them.

    Clips that have labels are augmented and mixed, too, as it is done beside decoding.

    Raises:
        WeightsError: if the motion source's are missing, or another network's.
    """
    make, beside = masker(recipe, device), masks_beside_decoding(recipe)
    with one_core(), threads(1):
        rows = _masked(recipe, maker, make, clips)  # a network is warm then
        took: list[float] = []
        until = time.perf_counter() + seconds
        while not took or time.perf_counter() < until:
            began = time.perf_counter()
            rows = _masked(recipe, maker, make, clips)
            took.append((time.perf_counter() - began) / len(clips))
    rate, error = mean_rate(took, recipe.data.views)
    source = f"motion from {recipe.flow.source}" if recipe.needs_motion else "no motion"
    source = "augmented, no motion" if recipe.record.labelled else source
    where = "beside decoding" if beside else f"an actor on a {'core' if device == 'cpu' else 'GPU'}"
    return Rate(rate, f"{source}, {where}", error), rows


def _masked(recipe: Recipe, maker: ClipMaker, make: Masker, clips: Sequence[Clip]) -> Batch:
    """Mask clips as their stage does: one after the other beside decoding, all together in a stage of its own."""
    frames = [clip.frames[:, : recipe.data.num_frames] for clip in clips]
    flow = None if masks_beside_decoding(recipe) else make.flow(np.concatenate(frames))
    views = recipe.data.views
    made = [
        make(maker, clip.slot, shown, clip.flow, None if flow is None else flow[row * views : (row + 1) * views])
        for row, (clip, shown) in enumerate(zip(clips, frames, strict=True))
    ]
    if flow is not None and flow.is_cuda:
        torch.cuda.synchronize()
    block = {name: np.concatenate([each[name] for each in made]) for name in made[0]}
    block["frames"] = np.concatenate(frames)
    block |= _labelled(recipe, maker, block["frames"])
    if recipe.extra_frames:
        block["extra"] = np.concatenate([clip.frames[:, recipe.data.num_frames :] for clip in clips])
    return block


def _labelled(recipe: Recipe, maker: ClipMaker, frames: Frames) -> Batch:
    """Augment and mix clips, and return what labels add to their rows; the first slots' draws, and the first class."""
    views, own = recipe.data.views, labeller(recipe)
    if own is None:
        return {}
    slots = len(frames) // views
    block: Batch = {"frames": frames.reshape(slots, views, *frames.shape[1:]), "weight": np.ones((slots, views))}
    block["slot"] = np.arange(slots)[:, None].repeat(views, 1)
    made = [own.augmented(maker, slot, 0, clips) for slot, clips in enumerate(block["frames"])]
    block |= {name: np.stack([each[name] for each in made]) for name in made[0]}
    own.mix(maker, block)
    return {name: block[name].reshape(len(frames), *block[name].shape[2:]) for name in made[0]}
