"""What a decode child is asked for, and what it answers: plain records, no processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from system.core.vectors import FLOW_STEPS, MOST_STEPS
from system.data.augment import crop_values
from system.data.decode import ClipRequest
from system.data.scale import Frames
from system.data.wire import MAX_BYTES

# Seconds that a child may take to start.
START_S = 60.0
# A time-out is tried once more, alone in a fresh child, with this many times the deadline, before it counts.
SECOND_CHANCE = 5
# Threads that a decoder may use: every one is told so when it is opened.
DECODER_THREADS = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use, and when it is replaced.

    Attributes:
        deadline_s: wall-clock time of a job.
        memory_mb: of address space, MiB.
        rss_mb: resident size above which it is replaced, MiB.
        videos: number of jobs after which it is replaced.
        cpu_s: CPU time of a job, all threads together; None: the deadline on each thread that a decoder may use.
    """

    deadline_s: float = 20.0
    memory_mb: int = 8192
    rss_mb: int = 1536
    videos: int = 5000
    cpu_s: float | None = None

    @property
    def job_cpu_s(self) -> float:
        """CPU time of a job, seconds."""
        return self.cpu_s or self.deadline_s * DECODER_THREADS

    @property
    def life_cpu_s(self) -> int:
        """CPU time of a child from its start to its end, whole seconds: all its jobs, and one second chance."""
        return ceil(START_S + (self.videos + SECOND_CHANCE) * self.job_cpu_s)


@dataclass(frozen=True, slots=True)
class Video:
    """The bytes of one video, or the parts of it that are at hand.

    Attributes:
        size: of the whole video, bytes.
        segments: (start, bytes) that are at hand.
        fetch: returns the bytes [start, stop) of the rest.
    """

    size: int
    segments: tuple[tuple[int, bytes], ...]
    fetch: Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Job:
    """One request to a child.

    Attributes:
        video: what it is about.
        op: decode, probe or transcode.
        values: its arguments as plain values.
        shape: of the frames in the answer; None if it has none.
        flow: shape of the flow that its bytes may be; None if they are something else.
        answer_bytes: the most that the answer may hold beside them.
        decoder: the decoder that is named, which the machine must have.
    """

    video: Video
    op: str
    values: dict[str, Any]
    shape: tuple[int, ...] | None = None
    flow: tuple[int, ...] | None = None
    answer_bytes: int = 0
    decoder: str = "auto"


@dataclass(slots=True)
class Answer:
    """What a child said about one job; of several jobs, `frames` is valid until the one after the next is sent.

    `flow` is (V, R, cells, cells, 2) from the stream's motion vectors, in steps of 1/`FLOW_STEPS` px; None where it has
    none.
    """

    values: dict[str, Any]
    data: bytes
    frames: Frames | None
    flow: NDArray[np.int16] | None = None


def decode_job(video: Video, request: ClipRequest) -> Job:
    """Make the job of decoding one clip."""
    values = {
        "frames": list(request.frames),
        "crops": [crop_values(crop) for crop in request.crops],
        "size": request.size,
        "decoder": request.decoder,
        "seek": [request.seek.frame, request.seek.timestamp, request.seek.target] if request.seek else None,
        "layers": request.layers,
        "pairs": [list(pair) for pair in request.pairs],
        "size_px": request.size_px,
    }
    flow = request.flow_shape() if request.pairs else None
    return Job(
        video,
        "decode",
        {"request": values},
        request.shape(),
        flow=flow,
        answer_bytes=2 * prod(flow) if flow else 0,
        decoder=request.decoder,
    )


def checked_flow(job: Job, data: bytes) -> NDArray[np.int16] | None:
    """Return the flow that a child gives with a clip, None if it gives none.

    Raises:
        ValueError: if it is not what the job asks for.
    """
    if job.flow is None or job.shape is None or not data:
        return None
    if len(data) != job.answer_bytes:
        raise ValueError(f"gives {len(data)} bytes of flow, not {job.answer_bytes}")
    farthest = min(FLOW_STEPS * job.shape[2], MOST_STEPS)  # the clip's side
    return np.clip(np.frombuffer(data, np.int16).reshape(job.flow), -farthest, farthest)


def transcode_job(video: Video, *, short_side: int, key_every: int, crf: int, layers: int = 0, phase: int = 0) -> Job:
    """Make the job of re-encoding a video; the arguments are those of `transcode`."""
    options = {"short_side": short_side, "key_every": key_every, "crf": crf, "layers": layers, "phase": phase}
    return Job(video, "transcode", {"options": options}, answer_bytes=MAX_BYTES)
