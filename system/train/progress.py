"""Where a run is: the plain values that a checkpoint's state.json holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from system.data.notes import Note

# Slots that must have been seen before a share of bad ones means anything.
MIN_SLOTS = 50
# The share is that of the last slots: when there are as many as this, both counts are halved.
RECENT_SLOTS = 4096


# Whether a step's gradient was used: it was; it was not finite; the step is skipped since an earlier start met it.
Update = Literal["taken", "not finite", "skipped"]


@dataclass(frozen=True, slots=True)
class StepCounts:
    """Slots of a step: all of them, and those with a spare, with nothing, and with motion from the fallback."""

    slots: int
    substituted: int = 0
    skipped: int = 0
    fallback: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """What is done before `step`.

    Attributes:
        step: the next step.
        slots: slots of the plan that have been taken, padding not counted.
        skipped: of these, the ones in which no video could stand.
        substituted: of these, the ones in which a spare stood.
        quarantine: video id -> (code, reason) of the videos that could not be read.
        recent_slots: slots by which the share of bad videos is judged.
        recent_bad: of these, the ones whose own video could not be read.
        fallback: slots whose stream had no motion vectors, where motion comes from them.
        updates: optimizer steps taken: the steps whose gradient was used.
        streak: steps in a row, up to now, whose gradient was not finite.
    """

    step: int = 0
    slots: int = 0
    skipped: int = 0
    substituted: int = 0
    quarantine: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    recent_slots: int = 0
    recent_bad: int = 0
    fallback: int = 0
    updates: int = 0
    streak: int = 0

    def after(self, counts: StepCounts, notes: Iterable[Note], update: Update = "taken") -> Progress:
        """Return the progress after one more step.

        Args:
            counts: of its slots.
            notes: why videos did not stand in theirs.
            update: whether its gradient was used; if not, all its slots count as skipped.
        """
        slots, taken = counts.slots, update == "taken"
        substituted, skipped = (counts.substituted, counts.skipped) if taken else (0, slots)
        bad = dict(self.quarantine)
        for note in notes:
            bad.setdefault(note.video_id, (note.code, note.reason))
        half = 2 if self.recent_slots >= RECENT_SLOTS else 1
        return replace(
            self,
            step=self.step + 1,
            slots=self.slots + slots,
            skipped=self.skipped + skipped,
            substituted=self.substituted + substituted,
            quarantine=bad,
            recent_slots=self.recent_slots // half + slots,
            recent_bad=self.recent_bad // half + counts.substituted + counts.skipped,
            fallback=self.fallback + counts.fallback,
            updates=self.updates + taken,
            streak=self.streak + 1 if update == "not finite" else 0 if taken else self.streak,
        )

    def at_start(self) -> Progress:
        """Return the progress with which a new start begins: what the world was like then says nothing about now.

        Missing objects are looked for again, and bad videos and useless steps are counted anew.
        """
        lasting = {video: verdict for video, verdict in self.quarantine.items() if verdict[0] != "storage"}
        return replace(self, quarantine=lasting, recent_slots=0, recent_bad=0, streak=0)

    @property
    def bad_ratio(self) -> float:
        """Share of the last slots whose own video could not be read."""
        return self.recent_bad / max(1, self.recent_slots)

    def too_many_bad(self, limit: float) -> bool:
        """Say whether more videos are bad than a recipe allows."""
        return self.recent_slots >= MIN_SLOTS and self.bad_ratio > limit

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "quarantine": {str(key): list(value) for key, value in self.quarantine.items()}}


def progress_from(values: Mapping[str, Any]) -> Progress:
    """Read what `as_dict` wrote."""
    quarantine = {int(key): (code, reason) for key, (code, reason) in values["quarantine"].items()}
    # A checkpoint from before steps could be skipped took a step of the optimizer in each.
    return Progress(**{"updates": values["step"], **values, "quarantine": quarantine})
