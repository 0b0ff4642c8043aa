"""Flow from the stream's own motion vectors: the encoder has already looked for where each block came from.

A decode child makes it from the stream (core/vectors.py, data/vectors.py), on cells of `CLIP_CELL_PX` px of each view,
and `warp.on_pixels` brings it to the frames' size. Streams without vectors are the fallback source's.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.core.vectors import FLOW_STEPS


def on_cells(flow: NDArray[np.int16]) -> Tensor:
    """Return the flow of a child in px: (V, R, cells, cells, 2) float32."""
    return torch.from_numpy(flow * np.float32(1 / FLOW_STEPS))
