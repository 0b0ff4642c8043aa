"""What a run's ledger proves: that each slot of its plan was trained once, and with which video.

The history of the newest whole checkpoint is compared with the plan (audit_checks.py). A step's record is the sum of
its clips' identities (core/identity.py), so nothing here reads a video; pixels and masks are what a replay compares
(report/replay.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from system.data.clips import ATTEMPTS, ClipMaker
from system.errors import RunError
from system.train.audit_checks import Expected, joints, steps_of_plan, substitutes
from system.train.ledger import Segment, segment_names
from system.train.past import Finding, Notes, Past

# Steps that a verdict names.
NAMED = 10


@dataclass(frozen=True, slots=True)
class EpochCount:
    """What became of an epoch's slots, as far as the history goes.

    Attributes:
        epoch: which.
        slots: that the history consumed.
        trained: with their own video.
        substituted: with a spare.
        skipped: with no video, or in a step that was not trained.
    """

    epoch: int
    slots: int
    trained: int
    substituted: int
    skipped: int


@dataclass(frozen=True, slots=True)
class BadVideo:
    """A video that did not stand in some slots, why, and slot -> the video that stood there instead; None: skipped."""

    video_id: int
    name: str
    code: str
    reason: str
    stand_ins: dict[int, str | None]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps [first_step, stop_step) that were made under the same conditions."""

    first_step: int
    stop_step: int
    ranks: int
    generation: int
    decoders: dict[str, str]
    mask_device: str


@dataclass(frozen=True)
class Audit:
    """What the ledger of a run says, and what is wrong with it.

    Attributes:
        run: URI of its folder.
        steps: of the history.
        compared: first and last step whose clips were compared with the plan.
        epochs: what became of their slots.
        bad_videos: those that did not stand in a slot.
        not_trained: steps whose gradient was not used, and why.
        stretches: under which conditions the steps were made.
        lost: segments of steps that were lost and done again, or saved and not yet committed.
        findings: what is wrong.
        first_step: of the history that was read; 0: all of it.
    """

    run: str
    steps: int
    compared: tuple[int, int]
    epochs: tuple[EpochCount, ...]
    bad_videos: tuple[BadVideo, ...]
    not_trained: dict[int, str]
    stretches: tuple[Stretch, ...]
    lost: tuple[str, ...]
    findings: tuple[Finding, ...]
    first_step: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def verdict(self) -> str:
        """One line."""
        compared = f"steps {self.compared[0]} to {self.compared[1]} compared"
        if self.clean:
            slots, substituted, skipped = (
                sum(getattr(each, name) for each in self.epochs) for name in ("slots", "substituted", "skipped")
            )
            counts = f"{slots} slots once each, {substituted} by substitutes, {skipped} skipped"
            steps = f"steps {self.first_step} to {self.steps - 1}" if self.first_step else f"{self.steps} steps"
            return f"audit: clean: {steps}, {counts}; {compared}"
        named = sorted({finding.step for finding in self.findings if finding.step is not None})
        wrong = ", ".join(map(str, named[:NAMED])) + ", ..." * (len(named) > NAMED)
        where = f" in step{'s' * (len(named) > 1)} {wrong}" if named else ""
        return f"audit: FAILED: {len(self.findings)} finding{'s' * (len(self.findings) > 1)}{where}; {compared}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "clean": self.clean, "verdict": self.verdict}


def audit(past: Past, from_step: int = 0, stop_step: int | None = None) -> Audit:
    """Compare a run's history with its plan.

    Args:
        past: of the run, or the newest part of it.
        from_step: first step whose clips are compared; everything else is checked as far as the history was read.
        stop_step: the step after the last one that is compared; default the history's end.

    Raises:
        RunError: if there are no such steps.
    """
    steps = past.checkpoint.step
    stop = steps if stop_step is None else min(steps, stop_step)
    if not 0 <= from_step < stop:
        raise RunError(f"no steps from {from_step} on and before {stop}; the run's history has 0 to {steps - 1}")
    notes = past.notes
    findings = [*past.broken, *joints(past), *substitutes(past, notes)]
    expected = Expected(past, notes)
    for segment in past.segments:
        findings += steps_of_plan(past, segment, expected, from_step, stop)
    findings += _updates(past)
    names = {each.previous.name for each in past.segments if each.previous}
    names |= {past.checkpoint.ledger.name} if past.checkpoint.ledger else set()
    return Audit(
        past.uri,
        steps,
        (from_step, stop - 1),
        tuple(_epochs(past, notes)),
        tuple(_bad_videos(past.maker, notes)),
        {step: why for segment in past.segments for step, why in segment.not_trained.items()},
        tuple(_stretches(past.segments)),
        tuple(sorted(name for name in set(segment_names(past.uri)) - names if not _before(name, past.first_step))),
        tuple(findings),
        past.first_step,
    )


def _before(name: str, step: int) -> bool:
    """Say whether a segment, by its name, ends before a step: whether it is lost is not known if it was not read."""
    stop = name.split("-")[1:2]
    return bool(stop) and stop[0].isdigit() and int(stop[0]) <= step


def _updates(past: Past) -> Iterator[Finding]:
    """Find an optimizer that has stepped more or less often than the history says."""
    if past.first_step:
        return
    left_out = sum(len(segment.not_trained) for segment in past.segments)
    expected, found = past.checkpoint.step - left_out, past.checkpoint.optimizer_step
    if not past.broken and expected != found:
        yield Finding(None, "updates of the optimizer", f"{expected}, one for each step that was trained", str(found))


def _epochs(past: Past, notes: Notes) -> Iterator[EpochCount]:
    """Count what became of each epoch's slots; every slot is of one kind."""
    size, per_step = past.maker.plan.num_videos, past.recipe.slots_per_step
    totals: dict[int, int] = {}
    substituted: dict[int, int] = {}
    skipped: dict[int, int] = {}
    left_out: set[int] = set()
    for segment in past.segments:
        _share(totals, segment.slots, size)
        for step in segment.not_trained:
            _share(skipped, range(step * per_step, (step + 1) * per_step), size)
            left_out.add(step)
    for slot, passed in notes.items():
        if slot // per_step not in left_out:
            kind = skipped if len(passed) > ATTEMPTS else substituted
            kind[slot // size] = kind.get(slot // size, 0) + 1
    for epoch, slots in sorted(totals.items()):
        spare, none = substituted.get(epoch, 0), skipped.get(epoch, 0)
        yield EpochCount(epoch, slots, slots - spare - none, spare, none)


def _share(counts: dict[int, int], slots: range, size: int) -> None:
    """Add slots to the counts of their epochs."""
    for epoch in range(slots.start // size, -(-slots.stop // size)):
        inside = min(slots.stop, (epoch + 1) * size) - max(slots.start, epoch * size)
        counts[epoch] = counts.get(epoch, 0) + inside


def _bad_videos(maker: ClipMaker, notes: Notes) -> Iterator[BadVideo]:
    """List the videos that were passed over, with what stood in their slots."""
    stood = {slot: maker.video_at(slot, len(passed)) for slot, passed in notes.items() if len(passed) <= ATTEMPTS}
    first = {note.video_id: note for passed in notes.values() for note in reversed(passed)}
    known = range(maker.plan.num_videos)
    names = maker.index.names([video for video in {*first, *stood.values()} if video in known])
    slots: dict[int, dict[int, str | None]] = {}
    for slot, passed in sorted(notes.items()):
        for note in passed:
            slots.setdefault(note.video_id, {})[slot] = names[stood[slot]] if slot in stood else None
    for video, note in sorted(first.items()):
        yield BadVideo(video, names.get(video, "no video of the index"), note.code, note.reason, slots[video])


def _stretches(segments: Sequence[Segment]) -> list[Stretch]:
    """Join the segments that were made under the same conditions."""
    joined: list[Stretch] = []
    for segment in segments:
        made = segment.made
        conditions = (made.ranks, made.generation, made.decoders, made.mask_device)
        last = joined[-1] if joined else None
        if last and conditions == (last.ranks, last.generation, last.decoders, last.mask_device):
            joined[-1] = Stretch(last.first_step, segment.stop_step, *conditions)
        else:
            joined.append(Stretch(segment.first_step, segment.stop_step, *conditions))
    return joined
