"""One rank's checkpoints: copied at a step's end, written behind the training, committed when all ranks have written.

    begin    all ranks   copy what this rank owns to the host; a thread writes it into the run's folder
    written  each rank   is it there? the loop adds the answers up with the step's other sums
    commit   all ranks   rank 0 gathers what the manifest has to say; a thread of it writes ledger, state and manifest
    finish   all ranks   wait until the checkpoint under way exists

At most one checkpoint is under way: the next one begins when it is finished, so memory holds one copy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from system.config import CheckpointSection
from system.errors import CheckpointFault
from system.train.checkpoint import open_checkpoint, retire
from system.train.fragments import Fragment
from system.train.ledger import Made, Segment, SegmentRef, ref_of, write_segment
from system.train.manifest import RankFile, commit, write_rank_file
from system.train.progress import Progress
from system.train.recorder import Span
from system.train.torch_engine import rank_and_size

Values = dict[str, Any]


@dataclass(frozen=True)
class Books:
    """What rank 0 writes besides a checkpoint.

    Attributes:
        before: called before the manifest is written: what is committed is never repeated, so neither are its metrics.
        after: (progress) called after it.
    """

    before: Callable[[], None] = lambda: None
    after: Callable[[Progress], None] = lambda progress: None


@dataclass(frozen=True)
class RunFacts:
    """What every checkpoint of a start has in common.

    Attributes:
        run: the run's folder.
        shapes: full shape of every parameter.
        state: plain values for state.json.
        slots_per_step: of the plan.
        made: under what conditions steps are made.
        fenced: raises if another job has taken the run over.
    """

    run: str
    shapes: dict[str, list[int]]
    state: Values
    slots_per_step: int
    made: Made
    fenced: Callable[[], None] = lambda: None


class Behind:
    """Work in a thread, whose error is raised to who asks for its result."""

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001  passed on
            self._error = error

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return not self._thread.is_alive()

    def result(self, deadline_s: float | None = None) -> Any:
        """Wait for the result.

        Raises:
            CheckpointFault: if it has not ended by the deadline; or what the work raised.
        """
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            raise CheckpointFault(f"{self._thread.name} is not done after {deadline_s:.0f} s")
        if self._error is not None:
            raise self._error
        return self._result


@dataclass
class HostCopy:
    """Host memory for one rank's fragments, used again for every checkpoint."""

    _buffers: dict[tuple[str, str, int], torch.Tensor] = field(default_factory=dict)

    def reserve(self, fragments: Sequence[Fragment]) -> None:
        """Take the memory: its pages are made at first touch, which takes longer than a copy into them."""
        for part in fragments:
            self._buffer(part).zero_()

    def of(self, fragments: Sequence[Fragment]) -> list[Fragment]:
        """Copy fragments into host memory."""
        copies = []
        for part in fragments:
            buffer = self._buffer(part)
            buffer.copy_(part.values.detach(), non_blocking=True)
            copies.append(Fragment(part.name, part.state, part.start, buffer))
        if any(part.values.is_cuda for part in fragments):
            torch.cuda.synchronize()
        return copies

    def _buffer(self, part: Fragment) -> torch.Tensor:
        key = (part.name, part.state, part.start)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != part.values.shape:
            pinned = part.values.is_cuda
            buffer = self._buffers[key] = torch.empty(part.values.shape, dtype=torch.float32, pin_memory=pinned)
        return buffer


class Keeper:
    """Keeps a run's checkpoints; every call but `written` is made by all ranks at the same step.

    Args:
        facts: what the checkpoints have in common.
        section: when checkpoints go again.
        fragments: returns what this rank owns.
        books: what rank 0 writes besides.
        last: the ledger's newest segment.
        deadline_s: longest wait for one checkpoint to be written.
    """

    def __init__(
        self,
        facts: RunFacts,
        section: CheckpointSection,
        fragments: Callable[[], Sequence[Fragment]],
        books: Books,
        last: SegmentRef | None,
        deadline_s: float = 900.0,
    ) -> None:
        self._facts, self._section, self._fragments, self._books = facts, section, fragments, books
        self._last, self._deadline_s = last, deadline_s
        self._rank, self._size = rank_and_size()
        self._copy = HostCopy()
        self._reserved: Behind | None = None
        self._upload: Behind | None = None
        self._commit: Behind | None = None
        self._under_way: tuple[Progress, Segment] | None = None

    def begin(self, after: Progress, span: Span) -> None:
        """Begin a checkpoint of the state after a step; returns when the state may change again."""
        self._complete()
        facts = self._facts
        segment = Segment(
            self._last,
            span.first_step,
            after.step,
            facts.slots_per_step,
            span.records,
            span.passed_over,
            span.not_trained,
            facts.made,
        )
        self._last = ref_of(segment)
        self._under_way = (after, segment)
        self._reserve().result(self._deadline_s)
        copies = self._copy.of(self._fragments())
        generation = facts.made.generation
        self._upload = Behind(
            lambda: write_rank_file(facts.run, after.step, self._rank, copies, generation),
            f"writing checkpoint {after.step}",
        )

    def written(self) -> bool:
        """Say whether this rank's part of a checkpoint is written that is not committed yet.

        Raises:
            StorageFault: if the last commit could not be written.
        """
        self._reserve()  # after the first step, when all states exist
        if self._commit is not None and self._commit.done:
            self._commit.result()
        return self._upload is not None and self._upload.done

    def _reserve(self) -> Behind:
        """Begin to take the memory for copies, unless that has begun."""
        if self._reserved is None:
            fragments = self._fragments()
            self._reserved = Behind(lambda: self._copy.reserve(fragments), "memory for checkpoints")
        return self._reserved

    def commit(self) -> None:
        """Commit the checkpoint that all ranks have written; rank 0 does it behind the training.

        Raises:
            StorageFault: if this rank could not write its part; CheckpointFault: if another one could not.
        """
        if self._upload is None or self._under_way is None:
            return
        mine: RankFile | None = None
        error: Exception | None = None
        try:
            mine = self._upload.result(self._deadline_s)
        except Exception as failed:  # noqa: BLE001  raised below, when the others know
            error = failed
        files: list[Any] = [mine]
        if self._size > 1:
            files = [None] * self._size
            dist.all_gather_object(files, mine)
        after, segment = self._under_way
        self._upload = self._under_way = None
        if error is not None:
            raise error
        if None in files:
            raise CheckpointFault(f"rank {files.index(None)} could not write its part of checkpoint {after.step}")
        if self._rank == 0:
            self._commit = Behind(lambda: self._write(after, segment, files), f"committing checkpoint {after.step}")

    def _complete(self) -> None:
        """Bring the checkpoint under way to its end, as far as this rank takes part in it."""
        self.commit()
        if self._commit is not None:
            self._commit.result(self._deadline_s)
            self._commit = None

    def finish(self) -> None:
        """Wait until the checkpoint under way is committed, on all ranks: a rank that ends takes the others with it.

        Raises:
            CheckpointFault: if another rank could not do its part.
        """
        error: Exception | None = None
        try:
            self._complete()
        except Exception as failed:  # noqa: BLE001  raised below, when the others know
            error = failed
        if self._size > 1:
            told: list[Any] = [None] * self._size
            dist.all_gather_object(told, error is None)
            if error is None and not all(told):
                error = CheckpointFault(f"rank {told.index(False)} could not complete the checkpoint")
        if error is not None:
            raise error

    def settle(self) -> None:
        """After an error, wait for what this rank can still complete alone."""
        if self._size == 1:
            self.commit()
        if self._commit is not None:
            self._commit.result(self._deadline_s)

    def _write(self, after: Progress, segment: Segment, files: Sequence[RankFile]) -> None:
        facts = self._facts
        self._books.before()
        ref = write_segment(facts.run, segment)
        state = {**facts.state, "optimizer_step": after.updates, "progress": after.as_dict(), "ledger": ref.as_dict()}
        commit(facts.run, after.step, files, facts.shapes, state, facts.made.generation, facts.fenced)
        self._books.after(after)
        # What is older goes only when what was written last can be opened.
        open_checkpoint(facts.run, after.step)
        retire(facts.run, after.step, self._section.keep, self._section.keep_every_steps)
