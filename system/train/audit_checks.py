"""The checks of an audit: the history has no gap, substitutes are the plan's, steps hold the clips of the plan.

V views a slot.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from system.core.identity import Words, clip_identities
from system.data.clips import ATTEMPTS, ClipMaker, VideoFacts
from system.data.notes import Note
from system.train.ledger import CLIPS, IDENTITY, Segment
from system.train.past import Finding, Notes, Past

# Slots whose identities are computed at once: some 20 MB.
CHUNK_SLOTS = 1 << 17


def joints(past: Past) -> Iterator[Finding]:
    """Find where segments leave slots out or take them twice, or do not lead from step 0 to the checkpoint."""
    due, last = past.first_step, "the run's start"
    for segment in past.segments:
        if segment.first_step != due and not (past.broken and last == "the run's start"):
            what = f"the segment after {last}"
            yield Finding(segment.first_step, what, f"to start at step {due}", f"step {segment.first_step}")
        if segment.slots_per_step != past.recipe.slots_per_step:
            expected, found = f"{past.recipe.slots_per_step} slots a step", str(segment.slots_per_step)
            yield Finding(segment.first_step, "the segment's slots", expected, found)
        due, last = segment.stop_step, f"step {segment.stop_step - 1}"
    if due != past.checkpoint.step:
        yield Finding(None, "the history's end", f"step {past.checkpoint.step}, the checkpoint's", f"step {due}")
    mine, theirs = past.maker.index.fingerprint, past.checkpoint.state["fingerprint"]
    if mine != theirs:
        yield Finding(None, "the index", f"the one that the run trained with, {theirs[:16]}", f"{mine[:16]}")


def substitutes(past: Past, notes: Notes) -> Iterator[Finding]:
    """Find videos that were passed over without being the plan's, or without a reason, and stand-ins that are bad."""
    where = {slot: segment for segment in past.segments for slot in {note.slot for note in segment.passed_over}}
    for slot, passed in sorted(notes.items()):
        step = slot // past.recipe.slots_per_step
        if slot not in where[slot].slots:
            steps = f"steps {where[slot].first_step} to {where[slot].stop_step - 1}"
            yield Finding(step, "a note", "it with its own step's", f"it with the {steps}", (slot, slot))
        expected = list(range(min(len(passed), ATTEMPTS + 1)))
        if [note.attempt for note in passed] != expected:
            found = f"{[note.attempt for note in passed]}"
            yield Finding(step, "the attempts passed over", f"{expected}", found, (slot, slot))
            continue
        for note in passed:
            yield from _of_note(past.maker, step, note)
        if len(passed) <= ATTEMPTS:
            stand_in = past.maker.video_at(slot, len(passed))
            if stand_in in {note.video_id for note in passed}:
                found = f"video {stand_in}, which was passed over for it"
                yield Finding(step, "the substitute", "a video that could be read", found, (slot, slot))


def _of_note(maker: ClipMaker, step: int, note: Note) -> Iterator[Finding]:
    slots = (note.slot, note.slot)
    due = maker.video_at(note.slot, note.attempt)
    if note.video_id != due:
        yield Finding(step, f"attempt {note.attempt}", f"video {due}", f"video {note.video_id}", slots)
    if not (note.code and note.reason):
        yield Finding(step, f"attempt {note.attempt}", "a reason why its video was passed over", "none", slots)


class Expected:
    """What the plan says that steps hold.

    Args:
        past: of the run.
        notes: the recorded substitutions.
    """

    def __init__(self, past: Past, notes: Notes) -> None:
        self._maker, self._per_step, self._notes = past.maker, past.recipe.slots_per_step, notes
        self._noted = np.array(sorted(notes), np.int64)
        index = past.maker.index
        self._facts = VideoFacts(index.numbers("num_frames"), index.numbers("layers"))

    def records(self, start: int, stop: int) -> tuple[NDArray[np.int64], Words]:
        """Return the clips and the identity of the steps [start, stop): two (steps,)."""
        per_step, views = self._per_step, self._maker.spec.views
        first, last = start * per_step, stop * per_step
        slots = np.arange(first, last)
        videos = self._maker.plan.videos(first, last)
        starts = self._maker.own_starts(first, last, videos, self._facts)
        kept = np.ones(len(slots), np.bool_)
        low, high = np.searchsorted(self._noted, (first, last))
        for slot in self._noted[low:high].tolist():
            attempt = len(self._notes[slot])
            if attempt > ATTEMPTS:
                kept[slot - first] = False
                continue
            video = self._maker.video_at(slot, attempt)
            num_frames, layers = int(self._facts.num_frames[video]), int(self._facts.layers[video])
            videos[slot - first] = video
            starts[slot - first] = self._maker.start_at(slot, attempt, num_frames, layers)
        sums = np.zeros(len(slots), np.uint64)
        for view in range(views):
            sums += clip_identities(slots, videos, np.full(len(slots), view), starts)
        sums[~kept] = 0
        shape = (stop - start, per_step)
        return kept.reshape(shape).sum(1) * views, sums.reshape(shape).sum(1, dtype=np.uint64)


def steps_of_plan(
    past: Past, segment: Segment, expected: Expected, from_step: int, stop_step: int
) -> Iterator[Finding]:
    """Find the steps of a segment, from one on and before another, that do not hold the plan's clips.

    Those that were not trained are among them: their clips were taken, and nothing else stood in for them.
    """
    first, last = max(from_step, segment.first_step), min(stop_step, segment.stop_step)
    size = max(1, CHUNK_SLOTS // past.recipe.slots_per_step)
    for start in range(first, last, size):
        stop = min(start + size, last)
        clips, identities = expected.records(start, stop)
        rows = segment.records[start - segment.first_step : stop - segment.first_step]
        wrong = (rows[:, CLIPS] != clips.astype(np.uint64)) | (rows[:, IDENTITY] != identities)
        for row in np.flatnonzero(wrong).tolist():
            step = start + row
            there, identity = rows[row, [CLIPS, IDENTITY]].tolist()
            due = f"{clips[row]} clips of the identity {identities[row]:016x}"
            found = f"{there} of {identity:016x}" + _whose(identity, start, identities)
            slots = (step * past.recipe.slots_per_step, (step + 1) * past.recipe.slots_per_step - 1)
            yield Finding(step, "its clips", due, found, slots)


def _whose(identity: int, start: int, identities: Words) -> str:
    """Say which step near by holds such clips."""
    same = np.flatnonzero(identities == np.uint64(identity))
    return f", the clips of step {start + int(same[0])}" if len(same) else ""
