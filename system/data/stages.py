"""The stages that Ray Data calls: plain callables from a batch of columns to a batch of columns.

Nothing here knows Ray, so every stage runs, and is tested, in a plain process. A stage never raises for a bad video and
never drops a row: the number of rows that come out is a function of the number that go in, which keeps every rank's
sequence the same through retries and lost nodes.

One row after `ReadStage` is a slot; one row after `DecodeStage` is a clip: V views a slot, T frames, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from system.core.identity import checksum
from system.core.plan import StepLayout
from system.data.clips import ATTEMPTS, Choice, ClipMaker
from system.data.columns import Batch, decode_spec, objects, read_spec
from system.data.labelling import Labeller
from system.data.masking import Masker
from system.data.notes import Note, pack_notes, unpack_notes
from system.data.reading import Reading, Segments, fetch, pack_starts, unpack_segments
from system.data.sandbox import Answer, Limits, Sandbox
from system.data.scale import Frames
from system.errors import DecodeError, StorageFault

# So many objects are not missing together by chance.
MANY = 4
# Videos in quarantine: id -> (code, reason).
KnownBad = Mapping[int, tuple[str, str]]
# Slot -> the video that is tried first, None for no video, and a note for each one that is passed over.
Chooser = Callable[[int], tuple[Choice | None, list[Note]]]


def choose_known_good(
    maker: ClipMaker, slot: int, known_bad: KnownBad, first: int = 0
) -> tuple[Choice | None, list[Note]]:
    """Choose the first video for a slot, from attempt `first` on, that is not known to be bad.

    Returns:
        The choice, None if all attempts are used up, and a note for each video passed over.
    """
    notes: list[Note] = []
    for attempt in range(first, ATTEMPTS + 1):
        choice = maker.choose(slot, attempt)
        bad = known_bad.get(choice.video.video_id)
        if bad is None:
            return choice, notes
        notes.append(Note(slot, choice.video.video_id, attempt, *bad))
    return None, notes


def _note(of: Choice | Reading, error: DecodeError) -> Note:
    return Note(of.slot, of.video_id, of.attempt, error.code, error.reason)


def refuse_all_gone(answers: Sequence[Segments | DecodeError]) -> None:
    """Tell videos that are gone from storage that is: no verdict about any video follows from the latter.

    Raises:
        StorageFault: if not one object of several is there.
    """
    gone = [answer for answer in answers if isinstance(answer, DecodeError) and answer.code == "storage"]
    if len(gone) == len(answers) >= MANY:
        raise StorageFault(f"all {len(gone)} videos of a block are gone; is the storage mounted here? {gone[0]}")


class ReadStage:
    """Block numbers to slots and their bytes.

    Args:
        maker: of the run's clips.
        layout: how a step is cut into blocks.
        known_bad: videos in quarantine: their slots start with a spare.
        chooser: chooses in place of that, where it is known already what stood in a slot.
    """

    spec = read_spec()

    def __init__(
        self, maker: ClipMaker, layout: StepLayout, known_bad: KnownBad, chooser: Chooser | None = None
    ) -> None:
        self._maker, self._layout = maker, layout
        self._known_bad, self._chooser = known_bad, chooser

    def __call__(self, batch: Batch) -> Batch:
        """One block number in, its slots out: real ones first, then padding with slot -1.

        A row's `attempt` is the one to decode, or, where it has no bytes, the next one to try.
        """
        (number,) = batch["block"]
        block = self._layout.block(int(number))
        slots = range(block.start, block.stop)
        chosen = self._chosen(slots)
        answers = fetch([reading for reading, _ in chosen if reading is not None])
        refuse_all_gone(answers)
        fetched = iter(answers)
        attempts: list[int] = []
        notes: list[str] = []
        segments: list[Segments] = []
        for reading, passed in chosen:
            attempt = ATTEMPTS + 1
            got: Segments = ()
            if reading is not None:
                answer = next(fetched)
                if isinstance(answer, DecodeError):
                    passed.append(_note(reading, answer))
                    attempt = reading.attempt + 1
                else:
                    attempt, got = reading.attempt, answer
            attempts.append(attempt)
            notes.append(pack_notes(passed))
            segments.append(got)
        padding = block.padding
        return {
            "step": np.full(block.num_slots, block.step),
            "slot": np.array([*slots, *[-1] * padding], np.int64),
            "attempt": np.array([*attempts, *[0] * padding], np.int64),
            "notes": objects([*notes, *[""] * padding]),
            "starts": objects([*map(pack_starts, segments), *[b""] * padding]),
            "bytes": objects([b"".join(data for _, data in got) for got in segments] + [b""] * padding),
        }

    def _chosen(self, slots: range) -> list[tuple[Reading | None, list[Note]]]:
        """Return what is read for each slot, None if no video is left, and a note for each one passed over."""
        own = self._maker.own_readings(slots.start, slots.stop) if self._chooser is None else [None] * len(slots)
        return [
            (reading, []) if reading is not None and reading.video_id not in self._known_bad else self._looked_up(slot)
            for slot, reading in zip(slots, own, strict=True)
        ]

    def _looked_up(self, slot: int) -> tuple[Reading | None, list[Note]]:
        if self._chooser is not None:
            choice, passed = self._chooser(slot)
        else:
            choice, passed = choose_known_good(self._maker, slot, self._known_bad)
        return (self._maker.reading(choice) if choice is not None else None), passed


def _checksums(out: Batch, row: int) -> list[int]:
    """Return the checksum of what each view of a slot shows: its frames, then its extra ones."""
    shown = [out[name][row] for name in ("frames", "extra") if name in out]
    return [checksum(*parts) for parts in zip(*shown, strict=True)]


@dataclass(slots=True)
class _Place:
    """One slot of the batch that is being decoded: its row, and what is known of it so far."""

    row: int
    slot: int
    attempt: int
    notes: list[Note]


class DecodeStage:
    """Bytes to frames and, for motion that comes from a CPU, to masks; where videos have labels, to labelled clips.

    `pixels` is of what the model sees: of labelled clips that is after they are augmented and mixed.

    Args:
        maker: of the run's clips.
        limits: of the decode child.
        masker: None if the mask is made by a stage of its own.
        known_bad: videos in quarantine, which are no spares either.
        spares: whether one stands in for a video that cannot be read; else its slot has weight zero.
        labeller: None where videos have no labels.
    """

    def __init__(
        self,
        maker: ClipMaker,
        limits: Limits,
        masker: Masker | None,
        known_bad: KnownBad,
        *,
        spares: bool = True,
        labeller: Labeller | None = None,
    ) -> None:
        grid, extra = maker.spec.grid, len(maker.spec.extra)
        labels = labeller.columns() if labeller else {}
        self.spec = decode_spec(grid, extra, {**labels, **(masker.columns(grid) if masker else {})})
        self._maker, self._masker, self._known_bad, self._spares = maker, masker, known_bad, spares
        self._labeller = labeller
        self._sandbox = Sandbox(maker.spec.views * (grid.num_frames + extra) * grid.height * grid.width * 3, limits)

    def start(self) -> None:
        """Start the decode child ahead of the first batch."""
        self._sandbox.start()

    def __call__(self, batch: Batch) -> Batch:
        """Slots in, their views out, in the same order."""
        out = self._empty(batch)
        places = [
            _Place(row, int(slot), int(batch["attempt"][row]), unpack_notes(batch["notes"][row]))
            for row, slot in enumerate(batch["slot"])
        ]
        ready = [place for place in places if len(batch["bytes"][place.row])]
        choices = [self._maker.choose(place.slot, place.attempt) for place in ready]
        jobs = [
            self._maker.job(choice, unpack_segments(batch["starts"][place.row], batch["bytes"][place.row]))
            for place, choice in zip(ready, choices, strict=True)
        ]
        failed = [place for place in places if place.slot >= 0 and place not in ready]
        for place, choice, answer in zip(ready, choices, self._sandbox.run(jobs), strict=True):
            if not self._take(out, place, choice, answer):
                failed.append(place)
        for place in failed if self._spares else ():  # the rare path: spares, one at a time
            self._substitute(out, place)
        if self._labeller is not None:
            self._labeller.mix(self._maker, out)
            for row in np.flatnonzero(out["weight"].any(1)).tolist():
                out["pixels"][row] = _checksums(out, row)
        for place in places:
            out["notes"][place.row, 0] = pack_notes(place.notes)
        return {name: values.reshape(-1, *values.shape[2:]) for name, values in out.items()}

    def _empty(self, batch: Batch) -> Batch:
        """Return columns for (slots, V) rows of weight zero: black frames, and as many visible tokens as any other."""
        slots, views = len(batch["slot"]), self._maker.spec.views
        out = {name: np.zeros((slots, views, *col.shape), col.dtype) for name, col in self.spec.gives.items()}
        out["step"][:] = batch["step"][:, None]
        out["slot"][:] = batch["slot"][:, None]
        out["view"][:] = np.arange(views)
        out["video_id"][:] = -1
        out["notes"][:] = ""
        if self._masker is not None:
            for name, values in self._masker.of_nothing(self._maker).items():
                out[name][:] = values
        if self._labeller is not None:
            for name, values in self._labeller.of_nothing(self._maker).items():
                out[name][:] = values
        return out

    def _take(self, out: Batch, place: _Place, choice: Choice, answer: Answer | DecodeError) -> bool:
        """Put a decoded slot in its row, or note why there is none; say whether there is."""
        if isinstance(answer, DecodeError):
            place.notes.append(_note(choice, answer))
            place.attempt = choice.attempt + 1
            return False
        assert answer.frames is not None
        frames: Frames = out["frames"][place.row]
        frames[:], extra = np.split(answer.frames, [frames.shape[1]], 1)
        if extra.shape[1]:
            out["extra"][place.row] = extra
        for name, value in (
            ("video_id", choice.video_id),
            ("start", choice.start),
            ("attempt", choice.attempt),
            ("weight", 1),
        ):
            out[name][place.row] = value
        if self._masker is not None:
            for name, values in self._masker(self._maker, choice.slot, frames, answer.flow).items():
                out[name][place.row] = values
        if self._labeller is not None:
            for name, values in self._labeller(self._maker, choice, frames).items():
                out[name][place.row] = values
        else:
            out["pixels"][place.row] = _checksums(out, place.row)
        return True

    def _substitute(self, out: Batch, place: _Place) -> None:
        """Try spare videos for a slot; after the last one it is skipped, with weight zero.

        A spare may be the slot's own video: what was passed over for a slot does not stand in it.
        """
        while place.attempt <= ATTEMPTS:
            tried = {note.video_id: (note.code, note.reason) for note in place.notes}
            known_bad = {**self._known_bad, **tried}
            choice, passed = choose_known_good(self._maker, place.slot, known_bad, place.attempt)
            place.notes += passed
            if choice is None:
                break
            (segments,) = fetch([self._maker.reading(choice)])
            if isinstance(segments, DecodeError):
                answer: Answer | DecodeError = segments
            else:
                answer = self._sandbox.one(self._maker.job(choice, segments))
            if self._take(out, place, choice, answer):
                return
        out["attempt"][place.row] = ATTEMPTS + 1

    def close(self) -> None:
        """End the decode child."""
        self._sandbox.close()
