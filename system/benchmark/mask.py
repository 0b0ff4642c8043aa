"""Frames to motion-guided masks: what a second makes of them, beside torchvision's RAFT-small the ordinary way.

Everything counts from uint8 frames to `visible`, with MGMAE's default mask. Runs without Ray, DeepSpeed and PyAV.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models import optical_flow

from system.benchmark.clips import clips, noise
from system.benchmark.conventional_mask import UPDATES, ConventionalMask
from system.benchmark.line import Line, Target, rate_line
from system.benchmark.stages import Asked
from system.benchmark.timing import interleaved, one_core
from system.benchmark.torch_work import finished, threads
from system.config import MotionSection
from system.core.clip import TokenGrid, slot_visible, token_grid
from system.core.masks import Noise
from system.core.warp import drawn_places
from system.methods.mgmae import MGMAE, MGMAEOptions
from system.motion.base import MotionSource, motion_source
from system.motion.dis import make_dis
from system.motion.raft import RAFT

GRID = token_grid(16, 224, 2, 16)
SHORT_GRID = token_grid(4, 128, 2, 16)
# A clip of DIS takes some 20 ms; one of RAFT on a CPU, a second.
DIS_CLIPS = 8
# What a block of the stream holds: RAFT is given all of its clips at once.
GPU_CLIPS = 48
DIS_CLIPS_PER_S = 45.0
RAFT_RATIO = {"cpu": 1.3, "cuda": 4.0}


@dataclass(frozen=True, slots=True)
class Work:
    """What is turned into masks.

    Attributes:
        grid: the tokens of a clip.
        frames: (B, T, H, W, 3) uint8.
        noise: (B, S, F), the draws of the masks.
    """

    grid: TokenGrid
    frames: NDArray[np.uint8]
    noise: Noise

    def first(self, count: int) -> Work:
        """Return as many clips of it."""
        return Work(self.grid, self.frames[:count], self.noise[:count])

    def places(self) -> list[NDArray[np.int64]]:
        """Return the places that each clip's mask starts from."""
        drawn = drawn_places(self.noise, slot_visible(self.grid.places, MGMAEOptions().mask_ratio))
        return [np.flatnonzero(row) for row in drawn]


def measure(asked: Asked) -> Sequence[Line]:
    """Measure the masks of each motion source."""
    device = torch.device(asked.device)
    grid = SHORT_GRID if asked.short else GRID
    count = 2 if asked.short else GPU_CLIPS if device.type == "cuda" else DIS_CLIPS
    work = Work(grid, clips(asked, count, grid), noise(count, grid))
    torch.manual_seed(0)
    network = optical_flow.raft_small(weights=None).eval()
    with one_core(), threads(1):
        lines = [_dis_line(asked, work.first(DIS_CLIPS), network)]
        if device.type == "cpu":  # a mask actor has a core of its own
            lines.append(_raft_line(asked, work, network, device))
    if device.type == "cuda":
        lines.append(_raft_line(asked, work, network.to(device), device))
    return [*lines, *_codec_lines(asked)]


def visible(work: Work, source: MotionSource) -> NDArray[np.bool_]:
    """Return the masks of clips as the stages make them: (B, N)."""
    options = MGMAEOptions()
    flow = source(work.frames, MGMAE.pairs(options, work.grid.num_frames))
    return MGMAE.mask(work.noise, flow, work.grid, options)


def _ours(work: Work, source: MotionSource, together: int) -> Callable[[], int]:
    """Return the masks of all clips, so many in one call."""
    parts = [
        Work(work.grid, work.frames[first : first + together], work.noise[first : first + together])
        for first in range(0, len(work.frames), together)
    ]
    return lambda: sum(len(visible(part, source)) for part in parts)


def _dis_alone(work: Work) -> Callable[[], int]:
    """Return the search alone, on frames that are grey already."""
    search = make_dis(MotionSection().preset)
    grey = [[cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip] for clip in work.frames]
    pairs = MGMAE.pairs(MGMAEOptions(), work.grid.num_frames)

    def done() -> int:
        for clip in grey:
            for pair in pairs:
                search.calc(clip[pair.start], clip[pair.end], None)  # type: ignore[call-overload]
        return len(grey)

    return done


def _ordinary(work: Work, network: optical_flow.RAFT) -> Callable[[], int]:
    """Return one clip the ordinary way: it takes a second on a CPU."""
    mask, places = ConventionalMask(network, work.grid), work.places()
    return lambda: len(mask(work.frames[0], places[0])) // work.grid.tokens


def _dis_line(asked: Asked, work: Work, network: optical_flow.RAFT) -> Line:
    source = motion_source(MotionSection(source="dis"))
    contenders = {"ours": _ours(work, source, 1), "limit": _dis_alone(work), "ordinary": _ordinary(work, network)}
    found = interleaved(contenders, asked.repeats)
    return rate_line(
        "mask",
        "dis",
        found["ours"],
        found["ordinary"],
        found["limit"],
        (Target("at_least", DIS_CLIPS_PER_S),),
        "frames to visible with DIS, one core, clips one after the other; conventional: torchvision's raft_small"
        f" (random weights: its cost), {UPDATES} updates, pair after pair, then the warp; limit: DIS's own calls",
    )


def _raft_line(asked: Asked, work: Work, network: optical_flow.RAFT, device: torch.device) -> Line:
    source = RAFT(copy.deepcopy(network), UPDATES)  # which puts the weights into an order of its own
    some = work if device.type == "cuda" else work.first(1)
    contenders = {
        "ours": finished(_ours(some, source, len(some.frames)), device),
        "ordinary": finished(_ordinary(work, network), device),
    }
    found = interleaved(contenders, asked.repeats)
    gap, size = flow_gap(work.first(1), source, ConventionalMask(network, work.grid))
    return rate_line(
        "mask",
        "raft",
        found["ours"],
        found["ordinary"],
        None,
        (Target("ratio", RAFT_RATIO[device.type]),),
        f"frames to visible with RAFT-small, {UPDATES} updates, {len(some.frames)} clips at a time, on"
        f" {'one core' if device.type == 'cpu' else device.type}; conventional: torchvision's raft_small pair after"
        f" pair, then the warp; random weights, the same; the flows differ by {gap:.1e} px at most, of {size:.3g}",
    )


def flow_gap(work: Work, source: RAFT, ordinary: ConventionalMask) -> tuple[float, float]:
    """Return how far our flow of the first clip is from torchvision's at most, and the largest of it, px."""
    ours = source(work.frames, MGMAE.pairs(MGMAEOptions(), work.grid.num_frames))[0]
    theirs = torch.stack(ordinary.flow(work.frames[0])).permute(0, 2, 3, 1)
    return float((ours - theirs).abs().max()), float(theirs.abs().max())


def _codec_lines(asked: Asked) -> Sequence[Line]:
    """Measure the motion of compressed streams, where they can be read."""
    if importlib.util.find_spec("av") is None:
        asked.say("PyAV is not installed, so nothing is measured of motion from compressed streams")
        return ()
    from system.benchmark import codec_motion  # noqa: PLC0415  PyAV

    return codec_motion.measure(asked)
