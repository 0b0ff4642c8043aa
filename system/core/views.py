"""Which clips of a video are looked at: test views, the samplers of fine-tuning, and how views' answers are merged.

All of it as VideoMAE's loaders do it for Kinetics, UCF101 and HMDB51 (`dense`) and for Something-Something V2
(`segments`). A view is one square of one clip: V = clips x crops views of a video, clip by clip. Frame numbers are
those of the video, from 0; "n" is how many it has. Pure: draws come in, numbers go out.

n videos, V views, C classes in `merged`; T frames of a clip, s frames from one to the next elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Sampling = Literal["dense", "segments"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)


@dataclass(frozen=True, slots=True)
class SquareCrop:
    """The `place`-th of `places` squares of a frame's short side, evenly along its long side; one alone is the centre.

    The first one is at the left or at the top.
    """

    place: int
    places: int


@dataclass(frozen=True, slots=True)
class Views:
    """The test views of a video.

    Attributes:
        sampling: how clips are taken from a video.
        clips: of a video.
        crops: of a clip.
    """

    sampling: Sampling = "dense"
    clips: int = 1
    crops: int = 1

    @property
    def count(self) -> int:
        """V, views of a video."""
        return self.clips * self.crops

    def frames(self, video_frames: int, num_frames: int, stride: int) -> tuple[tuple[int, ...], ...]:
        """Return the frame numbers of each clip.

        Args:
            video_frames: n, at least 1.
            num_frames: T.
            stride: s; segments have none.
        """
        if self.sampling == "segments":
            return segment_clips(video_frames, num_frames, self.clips)
        return dense_clips(video_frames, num_frames, stride, self.clips)

    def squares(self) -> tuple[SquareCrop, ...]:
        """Return the crops of each clip."""
        return tuple(SquareCrop(place, self.crops) for place in range(self.crops))

    def __str__(self) -> str:
        return f"{self.sampling} {self.clips}x{self.crops}"


def dense_clips(video_frames: int, num_frames: int, stride: int, clips: int) -> tuple[tuple[int, ...], ...]:
    """Return clips of every s-th frame, at evenly spaced starts from the first possible to the last one.

    Of the whole video every s-th frame is taken, the last of them repeated until there are T; the clips are windows of
    T among these. The one clip of `clips=1` is the middle one (our choice, the released code has no such case).
    """
    taken = list(range(0, video_frames, stride))
    taken += [taken[-1]] * (num_frames - len(taken))
    room = len(taken) - num_frames
    starts = [index * room // (clips - 1) for index in range(clips)] if clips > 1 else [room // 2]
    return tuple(tuple(taken[start : start + num_frames]) for start in starts)


def segment_clips(video_frames: int, num_frames: int, clips: int) -> tuple[tuple[int, ...], ...]:
    """Return clips with one frame of each of T equal segments: clip k its frame at k/K of the segment.

    So of two clips the first has the segments' starts and the second their middles. One alone has the middles, and more
    than two are spread the same way (both our choice). A segment of less than a frame repeats frames.
    """
    offsets = [(index, clips) for index in range(clips)] if clips > 1 else [(1, 2)]
    return tuple(
        tuple((segment * parts + part) * video_frames // (num_frames * parts) for segment in range(num_frames))
        for part, parts in offsets
    )


def dense_training_frames(draw: float, video_frames: int, num_frames: int, stride: int) -> tuple[int, ...]:
    """Return a training clip: T points spread over T * s frames, both ends included, from a random start.

    The real stride is (T * s) / (T - 1): 4.27 for 16 x 4. A video that is not longer than T * s frames gives n // s
    points over the whole of it, and its last frame for the rest.

    Args:
        draw: uniform in [0, 1).
        video_frames: n, at least 1.
        num_frames: T.
        stride: s.
    """
    span = num_frames * stride
    if video_frames > span:
        start = int(draw * (video_frames - span))
        return _spread(start, span, num_frames, start + span - 1)
    last = video_frames - 1
    found = _spread(0, video_frames, video_frames // stride, last)
    return found + (last,) * (num_frames - len(found))


def _spread(start: int, span: int, count: int, last: int) -> tuple[int, ...]:
    """Return `count` numbers from `start` to `start + span`, both included, none above `last`."""
    return tuple(min(start + index * span // max(1, count - 1), last) for index in range(count))


def segment_training_frames(draws: Sequence[float], video_frames: int) -> tuple[int, ...]:
    """Return a training clip with a random frame of each of T segments of n // T frames.

    A video of fewer than T frames gives its first frame T times, as in the released code.

    Args:
        draws: T numbers, uniform in [0, 1).
        video_frames: n, at least 1.
    """
    length = video_frames // len(draws)
    return tuple(segment * length + int(draw * length) for segment, draw in enumerate(draws))


def merged(logits: NDArray[np.floating], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Merge the answers about a video's views: softmax of each view, then their mean.

    Args:
        logits: (n, V, C).
        seen: (n, V); views that could not be read do not count.

    Returns:
        (n, C), rows of probabilities; zeros for a video of which nothing was seen.
    """
    raised = np.exp(logits.astype(np.float64) - logits.max(2, keepdims=True))
    shares = np.where(seen[..., None], raised / raised.sum(2, keepdims=True), 0.0)
    return np.asarray(shares.sum(1) / np.maximum(seen.sum(1), 1)[:, None], np.float64)
