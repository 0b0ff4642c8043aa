"""What each motion source costs, and how well its flow and its masks agree with a reference.

R frame pairs, size x size px, N tokens. Flow is (R, size, size, 2) float32 px on the clip's grid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from system.core.pairs import FramePair
from system.motion.base import MotionSource
from system.report.motion_clips import Flow, MotionClip

Visible = NDArray[np.bool_]
# The name that the true flow of generated videos has among the sources.
TRUTH = "truth"
# What moves less than this from one sampled frame to the next counts as still, px.
STILL_PX = 0.5


class Estimate(NamedTuple):
    """What a source says about one clip: flow (R, size, size, 2) px, and the seconds that it took."""

    flow: Flow
    seconds: float


# From a clip (its frames, or its bytes and what is wanted of them) to flow.
Estimator = Callable[[MotionClip], Estimate]


@dataclass(frozen=True, slots=True)
class Compared:
    """One clip as every source sees it: flows, masks and seconds by the source's name.

    The truth is among the flows and masks where it is known; a source whose flow means nothing has its seconds alone.
    """

    clip: MotionClip
    flows: Mapping[str, Flow]
    visible: Mapping[str, Visible]
    seconds: Mapping[str, float]


class Score(NamedTuple):
    """One line of the table, over all clips.

    Attributes:
        seconds: median over the clips.
        error_px: mean end-point error over all px; None where the truth is not known.
        moving_error_px: the same over the px that move; None where nothing does.
        agreement: mean intersection over union of the visible tokens with the reference's; None for a source whose
            flow means nothing.
    """

    seconds: float
    error_px: float | None
    moving_error_px: float | None
    agreement: float | None


def end_point_errors(flow: Flow, truth: Flow) -> NDArray[np.float32]:
    """Return the distance of each px's flow from the true one: (..., 2) -> (...) px."""
    return np.asarray(np.hypot(flow[..., 0] - truth[..., 0], flow[..., 1] - truth[..., 1]), np.float32)


def overlap(one: Visible, other: Visible) -> float:
    """Return intersection over union of two masks; 1 for two empty ones."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def of_frames(source: MotionSource, pairs: Sequence[FramePair], clock: Callable[[], float]) -> Estimator:
    """Turn a source that works on frames into one that works on a clip, timed by `clock`."""

    def estimate(clip: MotionClip) -> Estimate:
        began = clock()
        flow = source(clip.frames[None], pairs)[0].cpu().numpy()
        return Estimate(flow, clock() - began)

    return estimate


def compare(
    clips: Iterable[MotionClip],
    sources: Mapping[str, Estimator],
    mask: Callable[[MotionClip, torch.Tensor], Visible],
    meaningless: Container[str] = (),
) -> Iterator[Compared]:
    """Ask every source about every clip.

    Args:
        clips: to compare on.
        sources: by the names of the table.
        mask: (clip, flow (1, R, size, size, 2)) -> the visible tokens (N,).
        meaningless: sources whose cost alone is of interest.
    """
    for clip in clips:
        made = {name: source(clip) for name, source in sources.items()}
        flows = {name: estimate.flow for name, estimate in made.items() if name not in meaningless}
        if clip.truth is not None:
            flows = {TRUTH: clip.truth, **flows}
        visible = {name: mask(clip, torch.from_numpy(flow)[None]) for name, flow in flows.items()}
        yield Compared(clip, flows, visible, {name: estimate.seconds for name, estimate in made.items()})


@dataclass(slots=True)
class _Sums:
    error: float = 0.0
    px: int = 0
    moving_error: float = 0.0
    moving_px: int = 0

    def add(self, flow: Flow, truth: Flow) -> None:
        errors = end_point_errors(flow, truth)
        moves = np.hypot(truth[..., 0], truth[..., 1]) > STILL_PX
        self.error += float(errors.sum(dtype=np.float64))
        self.px += errors.size
        self.moving_error += float(errors[moves].sum(dtype=np.float64))
        self.moving_px += int(moves.sum())


class Scores:
    """Adds up what `compare` yields, so that no clip has to be kept.

    Args:
        reference: name of the flow that masks are compared with.
    """

    def __init__(self, reference: str) -> None:
        self.clips = 0
        self._reference = reference
        self._seconds: dict[str, list[float]] = {}
        self._overlaps: dict[str, list[float]] = {}
        self._sums: dict[str, _Sums] = {}

    def add(self, compared: Compared) -> None:
        """Take in one clip."""
        self.clips += 1
        truth, wanted = compared.flows.get(TRUTH), compared.visible[self._reference]
        for name, seconds in compared.seconds.items():
            self._seconds.setdefault(name, []).append(seconds)
            if name not in compared.flows:
                continue
            self._overlaps.setdefault(name, []).append(overlap(compared.visible[name], wanted))
            if truth is not None:
                self._sums.setdefault(name, _Sums()).add(compared.flows[name], truth)

    def lines(self) -> dict[str, Score]:
        """Return the lines of the table by source, in the order of the sources."""
        lines = {}
        for name, seconds in self._seconds.items():
            sums, overlaps = self._sums.get(name, _Sums()), self._overlaps.get(name)
            lines[name] = Score(
                float(np.median(seconds)),
                sums.error / sums.px if sums.px else None,
                sums.moving_error / sums.moving_px if sums.moving_px else None,
                float(np.mean(overlaps)) if overlaps else None,
            )
        return lines


def table(lines: Mapping[str, Score], reference: str) -> str:
    """Write the table as Markdown."""

    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    cells = [("source", "ms/clip", "error, px", "error of what moves, px", f"mask overlap with {reference}")]
    for name, score in lines.items():
        error, moving = number(score.error_px, 2), number(score.moving_error_px, 2)
        cells.append((name, number(1000 * score.seconds, 1), error, moving, number(score.agreement, 3)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    return "\n".join([rows[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rows[1:]])


def clock_of(device: str) -> Callable[[], float]:
    """Return the clock for a device: CPU seconds of this process, which other processes do not stretch, or a wall's."""
    return time.process_time if device == "cpu" else time.perf_counter
