"""Why a video did not stand in its slot: what travels with a row, from a decode child to the run's quarantine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """Why a video did not stand in its slot."""

    slot: int
    video_id: int
    attempt: int
    code: str
    reason: str


def pack_notes(notes: Sequence[Note]) -> str:
    """Write notes as text; no notes are the empty text."""
    values = [[note.slot, note.video_id, note.attempt, note.code, note.reason] for note in notes]
    return json.dumps(values) if values else ""


def unpack_notes(text: str) -> list[Note]:
    """Read what `pack_notes` wrote."""
    return [Note(*values) for values in json.loads(text)] if text else []
