"""What a clip is: which frames of a video it takes, and the grid of tokens that it becomes.

T frames of H x W px; a tubelet is `tubelet_frames` x `patch_px` x `patch_px`; S slots in time, F places per slot
(rows x cols), N = S x F tokens, ordered (slot, row, col). Plain Python: recipes are validated with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """The tokens of one clip: `slots` x `rows` x `cols` tubelets of `tubelet_frames` x `patch_px` x `patch_px`."""

    slots: int
    rows: int
    cols: int
    tubelet_frames: int
    patch_px: int

    @property
    def places(self) -> int:
        """F, tokens of one slot."""
        return self.rows * self.cols

    @property
    def tokens(self) -> int:
        """N, tokens of the clip."""
        return self.slots * self.places

    @property
    def num_frames(self) -> int:
        """T, frames of the clip."""
        return self.slots * self.tubelet_frames

    @property
    def height(self) -> int:
        """H, px."""
        return self.rows * self.patch_px

    @property
    def width(self) -> int:
        """W, px."""
        return self.cols * self.patch_px

    @property
    def values(self) -> int:
        """P, numbers of one RGB tubelet."""
        return self.tubelet_frames * self.patch_px * self.patch_px * 3


def token_grid(num_frames: int, size: int, tubelet_frames: int, patch_px: int) -> TokenGrid:
    """Return the grid of a square clip.

    Raises:
        ValueError: if the tubelet does not divide the clip.
    """
    if num_frames % tubelet_frames:
        raise ValueError(
            f"data.num_frames={num_frames} is not a multiple of model.tubelet_frames={tubelet_frames};"
            f" use {max(1, num_frames // tubelet_frames) * tubelet_frames}"
        )
    if size % patch_px:
        raise ValueError(
            f"data.size={size} is not a multiple of model.patch_px={patch_px};"
            f" use {max(1, round(size / patch_px)) * patch_px}"
        )
    side = size // patch_px
    return TokenGrid(num_frames // tubelet_frames, side, side, tubelet_frames, patch_px)


def clip_span(num_frames: int, stride: int, extra: Sequence[int] = ()) -> int:
    """Return the original frames that a clip covers: T * stride, or as far as the farthest extra frame."""
    return max(num_frames * stride, 1 + max(extra, default=0))


def start_frame(draw: float, video_frames: int, span: int) -> int:
    """Return the clip's first frame: a uniform integer in [0, video_frames - span].

    Args:
        draw: uniform in [0, 1).
        video_frames: frames of the video.
        span: original frames that the clip covers.

    Returns:
        A frame number from 0; 0 for a video shorter than the span (VideoMAE's loader does the same).
    """
    choices = video_frames - span + 1
    return int(draw * choices) if choices > 1 else 0


def frame_numbers(start: int, video_frames: int, num_frames: int, stride: int) -> tuple[int, ...]:
    """Return the frames of a clip; where the next stride would leave the video, the last one reached is repeated."""
    last = start + max(0, (video_frames - 1 - start) // stride) * stride
    return tuple(min(start + i * stride, last) for i in range(num_frames))


def extra_numbers(start: int, video_frames: int, last: int, extra: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of the extra frames; beyond the video the last sampled one is repeated.

    Args:
        start: the clip's first frame.
        video_frames: frames of the video.
        last: the last sampled frame.
        extra: offsets from the first frame, original frames.
    """
    return tuple(start + offset if start + offset < video_frames else last for offset in extra)


def slot_visible(places: int, mask_ratio: float) -> int:
    """Return the tokens of a slot that stay visible: `places - int(places * mask_ratio)`.

    The rule of VideoMAE (20 of 196 at 0.9), used for every method so that they see equally much. int, not round: as the
    reference implementation counts.
    """
    return places - int(places * mask_ratio)
