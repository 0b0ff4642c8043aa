"""From the motion vectors that PyAV's FFmpeg exports to flow between the sampled frames of each view.

Exported are those of H.264 and of the MPEG family (MPEG-1, MPEG-2, MPEG-4 part 2, H.263); not those of HEVC, VP8, VP9
and AV1. What is assumed of a stream stands in core/vectors.py. Runs in a decode child.

V views, R frame pairs, cells of `CLIP_CELL_PX` px of the clip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.frame import PictureType
from av.video.stream import VideoStream
from numpy.typing import NDArray

from system.core.vectors import Field, Span, completed, num_cells, rasterized, regrouped, steadied, walked
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


class VectorCollector:
    """Looks at the frames of one clip as they are decoded, and says what moved where.

    Args:
        request: of the clip.
    """

    def __init__(self, request: ClipRequest) -> None:
        self._request = request
        self._first, self._last = min(request.frames), max(request.frames)
        self._scaler = Scaler(request.crops, request.size)
        self._forget()

    def _forget(self) -> None:
        self._spans: list[Span] = []
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
        if self._is_refused or frame.pict_type in _NO_ANCHORS:
            return
        if self._anchor is not None and number > max(self._anchor, self._first - MAX_LEADING):
            self._spans.append(Span(self._anchor, number, self._velocity(frame, number - self._anchor)))
        self._anchor = number

    def _velocity(self, frame: av.VideoFrame, frames: int) -> Field:
        vectors = frame.side_data.get("MOTION_VECTORS") if frame.pict_type != PictureType.I else None
        if vectors is None:
            return self._unknown()
        return rasterized(vectors.to_ndarray(), frame.height, frame.width) / np.float32(-frames)

    def _unknown(self) -> Field:
        assert self._size is not None
        width, height = self._size
        return np.full((num_cells(height), num_cells(width), 2), np.nan, np.float32)

    def is_complete(self, last: int) -> bool:
        """Say whether the frames after the last wanted one add nothing: an anchor at or behind it has been seen."""
        behind = self._anchor is not None and self._anchor >= last
        return behind or self._is_refused or self._seen >= last + MAX_LEADING

    def flow(self) -> NDArray[np.float16] | None:
        """Return (V, R, cells, cells, 2) px of the clip, x then y; None where the stream says too little.

        Flow of pair (a, b) is on the grid of a: what a shows at x, b shows at x + flow(x).
        """
        within = [span for span in self._spans if span.stop > self._first and span.start < self._last]
        known = [1 - np.isnan(span.velocity[..., 0]).mean() for span in within]
        marks = sorted({self._request.frames[place] for pair in self._request.pairs for place in pair})
        if self._is_refused or len(marks) < 2 or not known or np.mean(known) < MIN_KNOWN:
            return None
        spans = steadied(regrouped(completed(self._whole()), marks))
        flow = np.empty(self._request.flow_shape(), np.float32)
        for view, box in enumerate(self._boxes):
            for number, pair in enumerate(self._request.pairs):
                flow[view, number] = self._between(box, spans, *(self._request.frames[place] for place in pair))
        for _ in range(self._turns):  # against the clock, as the frames are turned
            flow = np.rot90(flow, 1, (2, 3))
            flow = np.stack([flow[..., 1], -flow[..., 0]], -1)
        size = self._request.size
        return np.ascontiguousarray(np.clip(flow, -size, size), np.float16)

    def _whole(self) -> list[Span]:
        """Return the spans with unknown ones at both ends where they do not reach over the clip."""
        first, last = self._spans[0].start, self._spans[-1].stop
        before = [Span(self._first, first, self._unknown())] if first > self._first else []
        after = [Span(last, self._last, self._unknown())] if last < self._last else []
        return [*before, *self._spans, *after]

    def _between(self, box: Box, spans: list[Span], start: int, end: int) -> Field:
        """Return the flow between two frames on the cells of one view: (cells, cells, 2) px of the clip."""
        side = self._request.flow_shape()[2]
        middle = (np.arange(side, dtype=np.float32) + 0.5) / side
        points = np.stack(np.meshgrid(box.x + middle * box.width, box.y + middle * box.height), -1).astype(np.float32)
        moved = walked(points, spans, start, end) - points
        return moved * (np.float32(self._request.size) / np.array([box.width, box.height], np.float32))
