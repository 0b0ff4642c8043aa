"""One picture of what motion sources see: frames, flow as colours and masks, a row for each source.

Columns are slots of the clip. Flow of a slot is that of its first frame's pair, which points toward the base frame, so
its hue turns over in the middle of the clip; its strength is relative to the reference's fastest px.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from system.core.clip import TokenGrid
from system.report.motion_table import Compared
from system.report.picture import MARGIN, flow_colours, row, show_visible

Image = NDArray[np.uint8]

# Side of one image of the picture, px: eight of them beside each other still fit on a screen.
THUMBNAIL_PX = 112


def _small(image: Image) -> Image:
    side = min(THUMBNAIL_PX, image.shape[0])
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def _rows_of(compared: Compared, reference: str, grid: TokenGrid) -> Iterator[Image]:
    frames = compared.clip.frames
    starts = range(0, grid.num_frames, grid.tubelet_frames)
    yield row([_small(frames[start]) for start in starts], compared.clip.name[:24], "frames")
    fastest = compared.flows[reference]
    largest = float(np.quantile(np.hypot(fastest[..., 0], fastest[..., 1]), 0.995))
    for name, flow in compared.flows.items():
        shown = [flow[min(start, len(flow) - 1)] for start in starts]
        note = f"flow; full: {largest:.1f} px" if name == reference else "flow"
        yield row([_small(flow_colours(each, largest)) for each in shown], name, note)
    for name, visible in compared.visible.items():
        seen = show_visible(frames, visible, grid)
        yield row([_small(seen[start]) for start in starts], name, "visible tokens")


def motion_picture(clips: Sequence[Compared], reference: str, grid: TokenGrid) -> bytes:
    """Draw clips as every source sees them, below each other; returns a PNG file's bytes."""
    rows = []
    for compared in clips:
        for each in _rows_of(compared, reference, grid):
            rows += [each, np.full((2, each.shape[1], 3), 255, np.uint8)]
        rows.append(np.full((MARGIN, rows[-1].shape[1], 3), 255, np.uint8))
    done, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(rows, 0), cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()
