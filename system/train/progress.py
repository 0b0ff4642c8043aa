"""Where a run is: the plain values that a checkpoint's state.json holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from system.data.notes import Note

# Slots that must have been seen before a share of bad ones means anything.
MIN_SLOTS = 50


@dataclass(frozen=True, slots=True)
class Progress:
    """What is done before `step`.

    Attributes:
        step: the next step.
        slots: slots of the plan that have been taken, padding not counted.
        skipped: of these, the ones in which no video could stand.
        substituted: of these, the ones in which a spare stood.
        quarantine: video id -> (code, reason) of the videos that could not be read.
    """

    step: int = 0
    slots: int = 0
    skipped: int = 0
    substituted: int = 0
    quarantine: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def after(self, slots: int, substituted: int, skipped: int, notes: Iterable[Note]) -> Progress:
        """Return the progress after one more step."""
        bad = dict(self.quarantine)
        for note in notes:
            bad.setdefault(note.video_id, (note.code, note.reason))
        return replace(
            self,
            step=self.step + 1,
            slots=self.slots + slots,
            skipped=self.skipped + skipped,
            substituted=self.substituted + substituted,
            quarantine=bad,
        )

    @property
    def bad_ratio(self) -> float:
        """Share of the slots so far whose own video could not be read."""
        return (self.substituted + self.skipped) / max(1, self.slots)

    def too_many_bad(self, limit: float) -> bool:
        """Say whether more videos are bad than a recipe allows."""
        return self.slots >= MIN_SLOTS and self.bad_ratio > limit

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "quarantine": {str(key): list(value) for key, value in self.quarantine.items()}}


def progress_from(values: Mapping[str, Any]) -> Progress:
    """Read what `as_dict` wrote."""
    quarantine = {int(key): (code, reason) for key, (code, reason) in values["quarantine"].items()}
    return Progress(values["step"], values["slots"], values["skipped"], values["substituted"], quarantine)
