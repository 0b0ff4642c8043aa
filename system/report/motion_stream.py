"""The source `codec` in a comparison: flow from the stream's own vectors, read in a decode child as in a run."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from system.core.pairs import FramePair
from system.data.decode import ClipRequest
from system.data.sandbox import Answer, Job, Limits, Sandbox, decode_job
from system.errors import DecodeError
from system.motion.base import decoded_flow
from system.report.motion_clips import MotionClip
from system.report.motion_table import Estimate, Estimator

# Decodings of one child: its start, which is in its time as well, differs by some 20 ms from child to child.
REPEATS = 8


def of_stream(pairs: Sequence[FramePair], fallback: Estimator, say: Callable[[str], None]) -> Estimator:
    """Return the source that reads a clip's stream; where that has no vectors, `fallback` answers and `say` is told.

    Its seconds are a decode child's CPU time with the vectors, less that without, and what brings them to px.
    """

    def estimate(clip: MotionClip) -> Estimate:
        try:
            without, _ = _decoded(clip, replace(clip.request, pairs=()))
            seconds, answer = _decoded(clip, replace(clip.request, pairs=tuple(pairs)))
        except DecodeError as error:
            say(f"{clip.name} cannot be decoded for its vectors ({error}): codec is its fallback there")
            return fallback(clip)
        if answer.flow is None:
            say(f"{clip.name} has no motion vectors: codec is its fallback there")
            return fallback(clip)
        began = time.process_time()
        flow = decoded_flow(answer.flow, clip.request.size)[0].numpy()
        return Estimate(flow, max(0.0, seconds - without) + time.process_time() - began)

    return estimate


def _decoded(clip: MotionClip, request: ClipRequest) -> tuple[float, Answer]:
    """Decode a clip in a child of its own; return the CPU seconds of one decoding, its share of the start included."""
    sandbox, before = Sandbox(prod(request.shape()), Limits()), _seconds_of_children()
    try:
        answers = [_answer(sandbox, decode_job(clip.video, request)) for _ in range(REPEATS)]
    finally:
        sandbox.close()  # a child's time is known when it has ended
    return (_seconds_of_children() - before) / REPEATS, answers[-1]


def _answer(sandbox: Sandbox, job: Job) -> Answer:
    outcome = sandbox.one(job)
    if isinstance(outcome, DecodeError):
        raise outcome
    return outcome


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
