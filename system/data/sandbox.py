"""Jobs done in decode children: sent ahead, tried again, and the child replaced when it must be.

A video that hangs, crashes or eats memory costs its child and a deadline, never the actor. One request is under way
while the caller works on the result before it, so decoding and masking overlap on two cores.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence

from system.data.job import SECOND_CHANCE, START_S, Answer, Job, Limits, Video, decode_job, transcode_job
from system.data.process import Process
from system.errors import DecodeError

__all__ = ["Answer", "Job", "Limits", "Sandbox", "Video", "decode_job", "transcode_job"]

# Verdicts after which a child is in the middle of something, or gone.
_CHILD_LOST = ("deadline", "crash", "storage")


class Sandbox:
    """Runs jobs in a child, one after the other, and replaces the child when it must be.

    Args:
        frame_bytes: of the largest result of one job.
        limits: what a child may use.
    """

    def __init__(self, frame_bytes: int, limits: Limits) -> None:
        page = mmap.PAGESIZE
        self._capacity = 2 * max(1, -(-frame_bytes // page)) * page
        self._limits = limits
        self._child: Process | None = None

    def run(self, jobs: Sequence[Job]) -> Iterator[Answer | DecodeError]:
        """Yield one outcome per job, in order. The next job is sent before an outcome is yielded.

        Raises:
            DataError: if storage refuses what a job needs.
            StorageFault: if storage does not answer.
            RecipeError: if the decoder that a job names cannot be loaded.
        """
        under_way = False
        try:
            for turn, job in enumerate(jobs):
                if not under_way:
                    self._send(job, turn)
                under_way = True
                outcome = self._outcome(job, turn)
                under_way = turn + 1 < len(jobs)
                if under_way:
                    self._send(jobs[turn + 1], turn + 1)
                yield outcome
        finally:
            if under_way:  # an error, or a caller that wants no more: the child's next words would be about this job
                self.close()

    def one(self, job: Job) -> Answer | DecodeError:
        """Run one job; it raises what `run` does. Frames of its answer are valid until the next job is sent."""
        return next(self.run([job]))

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def start(self) -> None:
        """Start the child ahead of its first job: it takes as long to start as its caller's own imports do."""
        if self._child is None:
            self._child = Process(self._capacity, self._limits)

    def _send(self, job: Job, turn: int, chance: int = 1) -> None:
        child = self._child
        if child is not None and (child.videos >= self._limits.videos or child.rss_mb > self._limits.rss_mb):
            # Frames of the last answer stay valid: a view keeps the old child's memory alive.
            self.close()
        self.start()
        assert self._child is not None
        self._child.send(job, turn, self._limits.deadline_s + START_S, chance * self._limits.job_cpu_s)

    def _outcome(self, job: Job, turn: int) -> Answer | DecodeError:
        """Wait for a job's outcome; a child that is late or dead is replaced, and what was late is tried again."""
        for attempt in range(2):
            child = self._child
            assert child is not None
            # A child that has done nothing yet may still be starting.
            deadline = self._limits.deadline_s * SECOND_CHANCE**attempt + (0 if child.videos else START_S)
            try:
                return child.receive(job, turn, deadline)
            except DecodeError as error:
                failure = error
            if failure.code in _CHILD_LOST:
                self.close()
            if failure.code != "deadline" or attempt:
                return failure
            self._send(job, turn, SECOND_CHANCE)
        return failure
