"""From a slot of the plan to the clip that stands in it: which video, which frames, which bytes, and what if it is bad.

Everything here is a function of the plan and the index, so any process can make any slot's clip again. The stages in
stages.py call it; so does whatever looks at a past step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from system import storage
from system.core.clip import TokenGrid, clip_span, extra_numbers, frame_numbers, start_frame
from system.core.masks import Noise
from system.core.pairs import FramePair
from system.core.plan import EpochPlan
from system.core.seeds import Purpose, first_draws, generator
from system.core.views import Sampling, dense_training_frames, segment_training_frames
from system.data.augment import Crop, draw_crop, draw_resized_crop
from system.data.containers import Seek
from system.data.decode import ClipRequest
from system.data.index import Index, VideoRow
from system.data.places import Places
from system.data.reading import Reading, Segments
from system.data.sandbox import Job, decode_job
from system.data.sources import stored_video

# Videos up to this size are read whole: one request, and no second one if the index is wrong.
WHOLE_BYTES = 8 << 20
# Above this a video is never read whole, whatever its index says; its decoder asks for what it comes to.
LONG_BYTES = 64 << 20
# What is sent ahead of such a video where a clip's place in it is not known, or too far from a key frame.
START_BYTES = 4 << 20
# Bytes before a key frame's packet that a container may want too (a Matroska cluster's head).
LEAD_BYTES = 1 << 16
# Spare videos that are tried for a slot before it is skipped.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """What every clip of a run has in common.

    Attributes:
        grid: its tokens; T frames of `grid.height` px squares.
        stride: original frames from one sampled frame to the next.
        views: clips cut from one decoded video.
        decoder: `auto` or a decoder's name.
        extra: offsets of frames that are decoded beyond the sampled ones, original frames from the clip's first.
        pairs: of sampled frames, between which the stream's motion vectors are wanted.
        sampling: how its frames are taken: every s-th from a random start, as in pre-training, or as fine-tuning does
            it (core/views.py), where there are no extra ones.
        crop: area and ratio, from and to, of a resized crop; None: the multi-scale crop of pre-training.
    """

    grid: TokenGrid
    stride: int
    views: int
    decoder: str
    extra: tuple[int, ...] = ()
    pairs: tuple[FramePair, ...] = ()
    sampling: Literal["every"] | Sampling = "every"
    crop: tuple[tuple[float, float], tuple[float, float]] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The video that stands in a slot at some attempt, and the frames that are taken from it.

    Attributes:
        slot: endless slot number.
        attempt: 0 for the slot's own video, else which spare.
        video: its row of the index.
        start: first frame of the clip.
    """

    slot: int
    attempt: int
    video: VideoRow
    start: int

    @property
    def video_id(self) -> int:
        """Return the video's number."""
        return self.video.video_id


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What the start of a clip depends on, of all videos of an index: two (V,) int64."""

    num_frames: NDArray[np.int64]
    layers: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClipMaker:
    """Turns slots into requests.

    Args:
        plan: of the run.
        spec: of its clips.
        index: of its videos.
        seed: of the run.
    """

    plan: EpochPlan
    spec: ClipSpec
    index: Index
    seed: int

    def choose(self, slot: int, attempt: int = 0) -> Choice:
        """Choose a slot's video, its own or a spare, and where its clip starts."""
        video = self.index.row(self.video_at(slot, attempt))
        return Choice(slot, attempt, video, self.start_at(slot, attempt, video.num_frames, video.layers))

    def video_at(self, slot: int, attempt: int) -> int:
        """Return the video that is tried for a slot at an attempt: its own, or a spare."""
        return int(self.plan.videos(slot, slot + 1)[0]) if attempt == 0 else self.plan.spare(slot, attempt)

    def start_at(self, slot: int, attempt: int, num_frames: int, layers: int) -> int:
        """Return where a slot's clip starts in a video of so many frames and layers."""
        if self.spec.sampling != "every":
            return self._training_frames(slot, attempt, num_frames)[0]
        draw = self._start_draws(slot, attempt).random()
        start = start_frame(draw, num_frames, clip_span(self.spec.grid.num_frames, self.spec.stride, self.spec.extra))
        # So that all sampled frames are references.
        return start - start % layers if layers and not self.spec.stride % layers else start

    def _start_draws(self, slot: int, attempt: int) -> np.random.Generator:
        epoch, position = self.plan.position(slot)
        return generator(self.seed, Purpose.START, epoch, position, attempt)

    def _training_frames(self, slot: int, attempt: int, num_frames: int) -> tuple[int, ...]:
        """Return the frames of a clip of fine-tuning; its views share them."""
        draws, count = self._start_draws(slot, attempt), self.spec.grid.num_frames
        if self.spec.sampling == "segments":
            return segment_training_frames(draws.random(count).tolist(), num_frames)
        return dense_training_frames(draws.random(), num_frames, count, self.spec.stride)

    def own_starts(self, start: int, stop: int, videos: NDArray[np.int64], facts: VideoFacts) -> NDArray[np.int64]:
        """Return where the clips of the slots [start, stop) start in the slots' own videos, as `choose` does.

        Args:
            start: first slot.
            stop: the slot after the last one.
            videos: (stop - start,), the slots' own videos.
            facts: of all videos.
        """
        epoch, position = np.divmod(np.arange(start, stop), self.plan.num_videos)
        draws = first_draws(self.seed, Purpose.START, epoch.astype(np.uint64), position.astype(np.uint64))
        frames, count, stride = facts.num_frames[videos], self.spec.grid.num_frames, self.spec.stride
        if self.spec.sampling == "segments":
            return (draws * (frames // count)).astype(np.int64)
        if self.spec.sampling == "dense":
            within = (draws * np.maximum(frames - count * stride, 0)).astype(np.int64)
            return np.where(frames < stride, frames - 1, within)  # of so short a video the last frame is taken alone
        choices = frames - clip_span(count, stride, self.spec.extra) + 1
        starts = (draws * np.maximum(choices, 1)).astype(np.int64)
        layers = np.maximum(facts.layers[videos], 1)
        starts -= np.where(stride % layers == 0, starts % layers, 0)
        return starts

    def crops(self, slot: int) -> tuple[Crop, ...]:
        """Draw the crop of each view."""
        epoch, position = self.plan.position(slot)
        draws = [generator(self.seed, Purpose.CROP, epoch, position, view) for view in range(self.spec.views)]
        if self.spec.crop is not None:
            area, ratios = self.spec.crop
            return tuple(draw_resized_crop(each, area, ratios) for each in draws)
        return tuple(draw_crop(each) for each in draws)

    def noise(self, slot: int) -> Noise:
        """Draw the numbers of each view's mask: (V, S, F) float32 in [0, 1)."""
        epoch, position = self.plan.position(slot)
        grid = self.spec.grid
        draws = [
            generator(self.seed, Purpose.MASK, epoch, position, view).random((grid.slots, grid.places), np.float32)
            for view in range(self.spec.views)
        ]
        return np.stack(draws)

    def phases(self, slot: int) -> NDArray[np.int64]:
        """Draw the turn of each view's decoder mask: (V,) in 0 to 3."""
        epoch, position = self.plan.position(slot)
        draws = [
            int(generator(self.seed, Purpose.DECODER_MASK, epoch, position, view).integers(4))
            for view in range(self.spec.views)
        ]
        return np.array(draws, np.int64)

    def frames(self, choice: Choice) -> tuple[int, ...]:
        """Return the numbers of a choice's frames, the sampled ones first."""
        num_frames = choice.video.num_frames
        if self.spec.sampling != "every":
            return self._training_frames(choice.slot, choice.attempt, num_frames)
        frames = frame_numbers(choice.start, num_frames, self.spec.grid.num_frames, self.spec.stride)
        return frames + extra_numbers(choice.start, num_frames, frames[-1], self.spec.extra)

    def reading(self, choice: Choice) -> Reading:
        """Say which bytes are read for a choice."""
        frames, video = self.frames(choice), choice.video
        ranges = wanted_ranges(video, frames[0], max(frames))
        return Reading(choice.slot, choice.attempt, video.video_id, video.uri, video.byte_start, tuple(ranges))

    def own_places(self, start: int, stop: int) -> tuple[NDArray[np.int64], Places]:
        """Return the own videos of the slots [start, stop), and where they lie."""
        videos = self.plan.videos(start, stop)
        return videos, self.index.places(videos)

    def own_readings(self, start: int, stop: int) -> list[Reading | None]:
        """Say which bytes are read of the own videos of the slots [start, stop); None where that depends on the clip.

        A small video is read whole, so its place is all that is looked up.
        """
        videos, places = self.own_places(start, stop)
        columns = (videos.tolist(), places.uris.tolist(), places.starts.tolist(), places.sizes.tolist())
        return [
            Reading(slot, 0, video, uri, at, ((0, size),)) if size <= WHOLE_BYTES else None
            for slot, video, uri, at, size in zip(range(start, stop), *columns, strict=True)
        ]

    def request(self, choice: Choice) -> ClipRequest:
        """Say what a decoder has to do for a choice."""
        grid, video, frames = self.spec.grid, choice.video, self.frames(choice)
        in_layers = video.layers and not any(frame % video.layers for frame in frames)
        return ClipRequest(
            frames,
            self.crops(choice.slot),
            grid.height,
            self.spec.decoder,
            key_frame_before(video, frames[0]),
            video.layers if in_layers else 0,
            self.spec.pairs,
            (video.width, video.height),
        )

    def job(self, choice: Choice, segments: Segments = ()) -> Job:
        """Make the job of decoding a choice, from the bytes at hand."""
        video = choice.video
        return decode_job(stored_video(video.uri, video.byte_start, video.num_bytes, segments), self.request(choice))


def key_frame_before(video: VideoRow, first: int) -> Seek | None:
    """Return the last key frame at or before a frame, and a time between it and the next one."""
    last = bisect_right(video.key_frames, first) - 1
    if last < 0:
        return None
    times = video.key_timestamps[last : last + 2]
    return Seek(video.key_frames[last], times[0], sum(times) // len(times))


def wanted_ranges(video: VideoRow, first: int, last: int) -> list[tuple[int, int]]:
    """Return the byte ranges of a video that decoding the frames [first, last] needs.

    The whole of a small video; of a long one its header and what lies between the key frame before the clip and the
    one after it, or, if that is unknown or too much, where it starts. A decode child asks for what turns out to be
    missing.
    """
    whole = [(0, video.num_bytes)]
    group = _group_bytes(video, first, last)
    if video.num_bytes <= WHOLE_BYTES or (group is None and video.num_bytes <= LONG_BYTES):
        return whole
    if group is None:
        ranges = _with_header(video, (0, START_BYTES))
    else:
        ranges = _with_header(video, group)
        if _sum(ranges) > LONG_BYTES:
            ranges = _with_header(video, (group[0], min(group[1], group[0] + START_BYTES)))
    return whole if video.num_bytes <= LONG_BYTES and _sum(ranges) > video.num_bytes // 2 else ranges


def _group_bytes(video: VideoRow, first: int, last: int) -> tuple[int, int] | None:
    """Return where the groups of the frames [first, last] lie, None if the container does not say."""
    keys = video.key_positions
    if not keys or min(keys) < 0:
        return None
    before = [keys[i] for i, frame in enumerate(video.key_frames) if frame <= first]
    after = [keys[i] for i, frame in enumerate(video.key_frames) if frame > last]
    begin = max(0, (before[-1] if before else keys[0]) - LEAD_BYTES)
    return begin, max(begin, min(after) if after else video.num_bytes)


def _with_header(video: VideoRow, piece: tuple[int, int]) -> list[tuple[int, int]]:
    header = list(zip(video.header[::2], video.header[1::2], strict=True))
    # A header that a container spreads over all of a long video is no header to send ahead.
    sent = header if _sum(header) <= LONG_BYTES // 2 else []
    return storage.merge_ranges([piece, *sent], gap=0)


def _sum(ranges: Sequence[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in ranges)
