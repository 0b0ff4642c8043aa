"""A run's history, read again: its recipe, its index, and the ledger's segments that lead to its newest checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from system import storage
from system.data.assemble import clip_maker
from system.data.clips import ClipMaker
from system.data.notes import Note
from system.errors import CheckpointFault, RunError
from system.recipe import Recipe
from system.train.checkpoint import Checkpoint, complete_steps, latest
from system.train.kept_recipe import recipe_there
from system.train.ledger import Segment, SegmentRef, notes_by_slot, read_segment, ref_from
from system.train.manifest import MANIFEST, step_uri

# Slot -> why videos did not stand in it, in the order of the attempts.
Notes = dict[int, list[Note]]
# What reading a segment raises that is gone, damaged or forged.
BROKEN = (CheckpointFault, ValueError, KeyError, TypeError)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the plan says.

    Attributes:
        step: where; None if it concerns no single step.
        what: is wrong.
        expected: by the plan.
        found: in the ledger.
        slots: of the plan, first and last; None if it concerns none.
    """

    step: int | None
    what: str
    expected: str
    found: str
    slots: tuple[int, int] | None = None

    def line(self) -> str:
        """Write it for people."""
        where = "" if self.step is None else f"step {self.step}: "
        if self.slots is None:
            slots = ""
        else:
            slots = (
                f" (slot {self.slots[0]})"
                if self.slots[0] == self.slots[1]
                else " (slots {} to {})".format(*self.slots)
            )
        return f"{where}{self.what}{slots}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Past:
    """A run's history.

    Attributes:
        uri: of the run's folder.
        recipe: of the run.
        checkpoint: whose history it is.
        maker: of the run's clips.
        segments: oldest first.
        broken: why there are none before the first one that is here, and ends of newer histories that are damaged.
        first_step: the first step that was asked for and is recorded here; 0: the whole history.
    """

    uri: str
    recipe: Recipe
    checkpoint: Checkpoint
    maker: ClipMaker
    segments: tuple[Segment, ...]
    broken: tuple[Finding, ...]
    first_step: int = 0

    @property
    def notes(self) -> Notes:
        """Why videos did not stand in their slots."""
        return notes_by_slot(self.segments)

    def segment_of(self, step: int) -> Segment:
        """Return the segment that records a step.

        Raises:
            RunError: if the history does not reach it.
            CheckpointFault: if the chain is broken after it.
        """
        if not 0 <= step < self.checkpoint.step:
            raise RunError(
                f"step {step} was asked for; the run's history has the steps 0 to {self.checkpoint.step - 1}"
            )
        for segment in self.segments:
            if segment.first_step <= step < segment.stop_step:
                return segment
        raise CheckpointFault(f"step {step} has no record: {'; '.join(each.line() for each in self.broken)}")


def open_past(run_uri: str, say: Callable[[str], None] = lambda line: None, newest: int | None = None) -> Past:
    """Read a run's recipe, index and history.

    Args:
        run_uri: of the run's folder.
        say: is told of checkpoints that are passed over.
        newest: slots of the plan, back to whose first the history is read; default: all. The segments are read one
            after another, so the time for a whole history grows with it.

    Raises:
        WeightsError: if there is no run.
        RunError: if it has no checkpoint, or one without a ledger.
        DataError: if its index is gone.
        CheckpointFault: if none of its checkpoints is whole.
    """
    recipe = recipe_there(run_uri)
    checkpoint = latest(run_uri, say)
    if checkpoint is None:
        raise RunError(f"{run_uri} has no checkpoint yet; what was trained is recorded with the first one")
    if checkpoint.ledger is None:
        raise RunError(f"{checkpoint.uri} names no ledger: it was written by a version that kept none")
    back_to = 0 if newest is None else max(0, checkpoint.step - max(1, newest // recipe.slots_per_step))
    segments, broken = walk(run_uri, checkpoint.ledger, back_to)
    first_step = 0 if broken or not segments or segments[0].previous is None else segments[0].first_step
    broken += damaged_ends(run_uri, checkpoint.step)
    maker = clip_maker(recipe, _index_uri(run_uri, str(checkpoint.state["index_uri"])))
    return Past(run_uri, recipe, checkpoint, maker, tuple(segments), tuple(broken), first_step)


def _index_uri(run_uri: str, named: str) -> str:
    """Return where the run's index lies; its own may have moved with the run's folder."""
    own = storage.join(run_uri, "index.parquet")
    return own if not storage.exists(named) and storage.exists(own) else named


def walk(run_uri: str, last: SegmentRef, back_to: int = 0) -> tuple[list[Segment], list[Finding]]:
    """Return the segments that lead to one, oldest first, as far back as they are whole, and what broke the chain.

    Above step 0, the walk ends with the segment that holds the step `back_to`.
    """
    found: list[Segment] = []
    ref: SegmentRef | None = last
    while ref is not None:
        try:
            segment = read_segment(run_uri, ref)
        except BROKEN as error:
            before = found[-1].first_step - 1 if found else None
            return found[::-1], [Finding(before, "the chain is broken here", f"the segment {ref.name}", str(error))]
        found.append(segment)
        ref = None if back_to > 0 and segment.first_step <= back_to else segment.previous
    return found[::-1], []


def damaged_ends(run_uri: str, step: int) -> list[Finding]:
    """Find checkpoints newer than a step's whose part of the ledger is damaged: what they were made from is unknown.

    A newer checkpoint with another damage is none of the ledger's: the run goes on from the older one.
    """
    found = []
    for newer in [each for each in complete_steps(run_uri) if each > step]:
        try:
            ref = ref_from(
                json.loads(storage.read(storage.join(step_uri(run_uri, newer), MANIFEST)).split(b"\n")[0])["ledger"]
            )
        except (ValueError, KeyError, TypeError, storage.MissingError):
            continue  # the manifest is torn
        try:
            if ref is not None:
                read_segment(run_uri, ref)
        except BROKEN as error:
            found.append(
                Finding(newer - 1, "the chain ends here", f"the segment {ref.name if ref else ''}", str(error))
            )
    return found
