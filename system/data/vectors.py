"""From the motion vectors that PyAV's FFmpeg exports to flow between the sampled frames of each view.

Exported are those of H.264 and of the MPEG family (MPEG-1, MPEG-2, MPEG-4 part 2, H.263); not those of HEVC, VP8, VP9
and AV1. Where the sampled frames are a layered stream's references, core/gaps.py takes all of them at once; what is
assumed of other streams stands in core/vectors.py. Runs in a decode child.

V views, R frame pairs, cells of `CLIP_CELL_PX` px of the clip.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import numpy as np
from av.video.frame import PictureType
from av.video.stream import VideoStream
from numpy.typing import NDArray

from system.core import gaps
from system.core.gaps import RECORD, Coded, Fields
from system.core.vectors import (
    CELL_PX,
    FINE_PX,
    FLOW_STEPS,
    MOST_STEPS,
    Field,
    Span,
    completed,
    num_cells,
    rasterized,
    regrouped,
    steadied,
    walked,
)
from system.data.augment import Box
from system.data.decode import MAX_LEADING
from system.data.scale import Scaler

if TYPE_CHECKING:
    from system.data.decode import ClipRequest

# Share of the cells that must have a vector of their own: below it other sources know more.
MIN_KNOWN = 0.5
# Codecs whose decoders export nothing: looking behind the clip for more of it would be in vain.
_WITHOUT = frozenset({"hevc", "vp8", "vp9", "av1", "libdav1d", "libaom-av1", "mjpeg"})
_NO_ANCHORS = (PictureType.B, PictureType.BI)
# Share of a gap that the vectors of one frame must tell of, for the gap to be taken as a whole. The frame before a key
# frame is a reference too: of the four frames up to a key frame its vectors tell of three.
_MOST_OF_GAP = 0.75
# Cells around the views from which things may move into them within a gap.
_MARGIN_CELLS = 3
_NO_RECORDS = np.empty(0, RECORD)


Steps = NDArray[np.int16]


class _Told(NamedTuple):
    """What an anchor's vectors tell of: the frames from the anchor before it to itself."""

    start: int
    stop: int
    records: NDArray[Any]


class VectorCollector:
    """Looks at the frames of one clip as they are decoded, and says what moved where.

    Args:
        request: of the clip.
    """

    def __init__(self, request: ClipRequest) -> None:
        self._request = request
        self._first, self._last = min(request.frames), max(request.frames)
        self._pairs = [(request.frames[start], request.frames[end]) for start, end in request.pairs]
        self._marks = sorted({number for pair in self._pairs for number in pair})
        # Frames before the clip whose vectors are taken too, to know more of its first ones.
        self._before = 0 if request.layers else MAX_LEADING
        self._scaler = Scaler(request.crops, request.size)
        self._forget()

    def _forget(self) -> None:
        self._told: list[_Told] = []
        self._anchor: int | None = None
        self._seen = -1
        self._size: tuple[int, int] | None = None
        self._boxes: list[Box] = []
        self._turns = 0
        self._is_refused = False

    def begin(self, stream: VideoStream) -> None:
        """Ask a stream that has not been decoded yet for its vectors, and forget what was seen of another."""
        self._forget()
        self._is_refused = stream.codec_context.name in _WITHOUT
        stream.codec_context.options = {"flags2": "+export_mvs"}

    def see(self, number: int, frame: av.VideoFrame) -> None:
        """Take what a frame says about motion; frames come in the order of presentation."""
        self._seen = number
        size = (frame.width, frame.height)
        if self._size is None:
            self._size, self._boxes = size, self._scaler.boxes(frame)
            self._turns = round(frame.rotation / 90) % 4
        # The vectors of a field are those of half a frame.
        self._is_refused |= frame.interlaced_frame or size != self._size
        kind = frame.pict_type
        if self._is_refused or kind in _NO_ANCHORS:
            return
        if self._anchor is not None and number > max(self._anchor, self._first - self._before):
            self._told.append(_Told(self._anchor, number, _NO_RECORDS if kind == PictureType.I else _records(frame)))
        self._anchor = number

    def is_complete(self, last: int) -> bool:
        """Say whether the frames after the last wanted one add nothing: an anchor at or behind it has been seen."""
        behind = self._anchor is not None and self._anchor >= last
        return behind or self._is_refused or self._seen >= last + MAX_LEADING

    def flow(self) -> Steps | None:
        """Return (V, R, cells, cells, 2) steps of 1/`FLOW_STEPS` px, x then y; None where the stream says too little.

        Flow of pair (a, b) is on the grid of a: what a shows at x, b shows at x + flow(x).
        """
        if self._is_refused or len(self._marks) < 2:
            return None
        coded = self._coded()
        flow = self._of_gaps(coded) if coded else self._of_spans()
        if flow is None:
            return None
        for _ in range(self._turns):  # against the clock, as the frames are turned
            flow = np.rot90(flow, 1, (2, 3))
            flow = np.stack([flow[..., 1], -flow[..., 0]], -1)
        return np.ascontiguousarray(flow)

    def _coded(self) -> list[Coded]:
        """Return the vectors of each gap between two wanted frames; none where flow has to be followed otherwise."""
        told = {each.start: each for each in self._told}
        coded = []
        for start, stop in pairwise(self._marks):
            each = told.get(start)
            if each is None or each.stop > stop or each.stop - start < _MOST_OF_GAP * (stop - start):
                return []
            coded.append(Coded(each.records, (stop - start) / (each.stop - start)))
        beside = {*pairwise(self._marks), *((number, number) for number in self._marks)}
        return coded if all((min(pair), max(pair)) in beside for pair in self._pairs) else []

    def _of_gaps(self, coded: list[Coded]) -> Steps | None:
        """Return the flow of a layered stream."""
        assert self._size is not None
        width, height = self._size
        whole = gaps.painted(coded, height, width)
        down, across = self._window()
        fields = np.ascontiguousarray(whole[:, down, across])
        unknown = np.isnan(fields.real)
        if unknown.mean() > 1 - MIN_KNOWN:
            return None
        gaps.completed(fields, unknown)
        gaps.steadied(fields)
        gap = {start: number for number, start in enumerate(self._marks)}
        forward = [(index, gap[start]) for index, (start, end) in enumerate(self._pairs) if start < end]
        backward = [(index, gap[end]) for index, (start, end) in enumerate(self._pairs) if start > end]
        flow = np.zeros(self._request.flow_shape(), np.int16)
        into = flow.view(np.int32)[..., 0]  # (V, R, cells, cells)
        if backward:
            pairs, of = map(list, zip(*backward, strict=True))
            for view, box in enumerate(self._boxes):
                found = self._in_steps(fields[of], box).reshape(len(of), -1)
                into[view, pairs] = found.take(self._places(box, fields.shape[2], CELL_PX), 1, mode="clip")
        if forward:
            pairs, of = map(list, zip(*forward, strict=True))
            moved, rest = fields[of], gaps.common(whole[of])
            cells = gaps.pushed(moved, rest).reshape(len(of), -1)
            both = -np.concatenate([moved.reshape(-1), rest])
            for view, box in enumerate(self._boxes):
                shown = cells.take(self._places(box, 2 * fields.shape[2], FINE_PX), 1, mode="clip")
                into[view, pairs] = self._in_steps(both, box).take(shown, mode="clip")
        return flow

    def _in_steps(self, fields: Fields, box: Box) -> NDArray[np.int32]:
        size = self._request.size
        return gaps.in_steps(fields, size / box.width, size / box.height, size)

    def _places(self, box: Box, width: int, cell: int) -> gaps.Indexes:
        """Return which of a window's cells each cell of a view lies in."""
        down, across = self._window()
        middle = _middles(self._request.flow_shape()[2])
        ys, xs = box.y - CELL_PX * down.start + middle * box.height, box.x - CELL_PX * across.start + middle * box.width
        return gaps.places(ys, xs, cell, width)

    def _window(self) -> tuple[slice, slice]:
        """Return the rows and the columns of cells that all views need."""
        top = min(box.y for box in self._boxes) // CELL_PX - _MARGIN_CELLS
        left = min(box.x for box in self._boxes) // CELL_PX - _MARGIN_CELLS
        bottom = num_cells(max(box.y + box.height for box in self._boxes)) + _MARGIN_CELLS
        right = num_cells(max(box.x + box.width for box in self._boxes)) + _MARGIN_CELLS
        return slice(max(0, top), bottom), slice(max(0, left), right)

    def _of_spans(self) -> Steps | None:
        """Return the flow of any other stream."""
        spans = [Span(start, stop, self._velocity(records, stop - start)) for start, stop, records in self._told]
        within = [span for span in spans if span.stop > self._first and span.start < self._last]
        known = [1 - np.isnan(span.velocity[..., 0]).mean() for span in within]
        if not known or np.mean(known) < MIN_KNOWN:
            return None
        spans = steadied(regrouped(completed(self._whole(spans)), self._marks))
        flow = np.empty(self._request.flow_shape(), np.float32)
        for view, box in enumerate(self._boxes):
            for number, (start, end) in enumerate(self._pairs):
                flow[view, number] = self._between(box, spans, start, end)
        limit = min(FLOW_STEPS * self._request.size, MOST_STEPS)
        return np.clip(np.rint(flow * FLOW_STEPS), -limit, limit).astype(np.int16)

    def _velocity(self, records: NDArray[Any], frames: int) -> Field:
        assert self._size is not None
        width, height = self._size
        return rasterized(records, height, width) / np.float32(-frames) if len(records) else self._unknown()

    def _unknown(self) -> Field:
        assert self._size is not None
        width, height = self._size
        return np.full((num_cells(height), num_cells(width), 2), np.nan, np.float32)

    def _whole(self, spans: list[Span]) -> list[Span]:
        """Return the spans with unknown ones at both ends where they do not reach over the clip."""
        first, last = spans[0].start, spans[-1].stop
        before = [Span(self._first, first, self._unknown())] if first > self._first else []
        after = [Span(last, self._last, self._unknown())] if last < self._last else []
        return [*before, *spans, *after]

    def _between(self, box: Box, spans: list[Span], start: int, end: int) -> Field:
        """Return the flow between two frames on the cells of one view: (cells, cells, 2) px of the clip."""
        middle = _middles(self._request.flow_shape()[2])
        points = np.stack(np.meshgrid(box.x + middle * box.width, box.y + middle * box.height), -1).astype(np.float32)
        moved = walked(points, spans, start, end) - points
        return moved * (np.float32(self._request.size) / np.array([box.width, box.height], np.float32))


def _middles(count: int) -> NDArray[np.float32]:
    """Return where the middles of so many cells lie along a side of 1."""
    return (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count)


def _records(frame: av.VideoFrame) -> NDArray[Any]:
    """Copy the vectors of a frame: the decoder wants its memory back."""
    vectors = frame.side_data.get("MOTION_VECTORS")
    return _NO_RECORDS if vectors is None else np.frombuffer(memoryview(vectors), np.uint8).copy().view(RECORD)
