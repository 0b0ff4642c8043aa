"""The stages that Ray Data calls: plain callables from a batch of columns to a batch of columns.

Nothing here knows Ray, so every stage runs, and is tested, in a plain process. A stage never raises for a bad video and
never drops a row: the number of rows that come out is a function of the number that go in, which keeps every rank's
sequence the same through retries and lost nodes.

One row of `READ` is a slot; one row of `DECODE` and `MASK` is a clip: V views a slot, T frames, N tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from system.core.plan import StepLayout
from system.data.clips import ATTEMPTS, Choice, ClipMaker, Segments, fetch
from system.data.decode import Frames
from system.data.sandbox import Limits, Sandbox
from system.errors import DecodeError
from system.methods.base import Method, MethodOptions
from system.motion.base import MotionSource

Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a stage adds: dtype, and the shape of one row's value."""

    dtype: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StageSpec:
    """What a stage needs and what its rows are afterwards.

    Attributes:
        name: for messages.
        takes: columns that must be there.
        gives: all columns afterwards.
    """

    name: str
    takes: frozenset[str]
    gives: Mapping[str, Column]


def check_chain(stages: Sequence[StageSpec]) -> None:
    """Refuse a chain in which a stage needs a column that nothing before it gives."""
    have: Mapping[str, Column] = {"block": Column("int64")}
    for stage in stages:
        missing = stage.takes - set(have)
        if missing:
            raise ValueError(f"stage {stage.name} needs the columns {sorted(missing)}, there are {sorted(have)}")
        have = stage.gives


READ_COLUMNS = {
    "step": Column("int64"),
    "slot": Column("int64"),
    "attempt": Column("int64"),
    "notes": Column("object"),
    "starts": Column("object"),
    "bytes": Column("object"),
}


def clip_columns(maker: ClipMaker, *, visible: bool) -> dict[str, Column]:
    """Return the columns of a clip's row, with or without its mask."""
    grid = maker.spec.grid
    columns = {
        "step": Column("int64"),
        "slot": Column("int64"),
        "view": Column("int64"),
        "video_id": Column("int64"),
        "start": Column("int64"),
        "attempt": Column("int64"),
        "weight": Column("float32"),
        "notes": Column("object"),
        "frames": Column("uint8", (grid.num_frames, grid.height, grid.width, 3)),
    }
    return {**columns, "visible": Column("bool", (grid.tokens,))} if visible else columns


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


def pack_starts(segments: Segments) -> bytes:
    """Write start and length of each segment as int64."""
    return np.array([(start, len(data)) for start, data in segments], np.int64).tobytes()


def unpack_segments(starts: bytes, data: bytes) -> Segments:
    """Cut the bytes of a row into its segments."""
    segments, at = [], 0
    for start, length in np.frombuffer(starts, np.int64).reshape(-1, 2).tolist():
        segments.append((start, data[at : at + length]))
        at += length
    return tuple(segments)


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    out = np.empty(len(values), object)
    out[:] = values
    return out


class ReadStage:
    """Block numbers to slots and their bytes.

    Args:
        maker: of the run's clips.
        layout: how a step is cut into blocks.
        known_bad: videos that the run has in quarantine: their slots start with a spare.
        wait: called with a block's number; returns when the trainers are near enough to it.
    """

    spec = StageSpec("read", frozenset({"block"}), READ_COLUMNS)

    def __init__(
        self,
        maker: ClipMaker,
        layout: StepLayout,
        known_bad: Mapping[int, tuple[str, str]],
        wait: Callable[[int], None] = lambda block: None,
    ) -> None:
        self._maker, self._layout, self._known_bad, self._wait = maker, layout, known_bad, wait

    def __call__(self, batch: Batch) -> Batch:
        """One block number in, its slots out: real ones first, then padding with slot -1."""
        (number,) = batch["block"]
        self._wait(int(number))
        block = self._layout.block(int(number))
        chosen = [choose_known_good(self._maker, slot, self._known_bad) for slot in range(block.start, block.stop)]
        present = [choice for choice, _ in chosen if choice is not None]
        fetched = iter(fetch(self._maker, present))
        rows: list[tuple[int, int, list[Note], Segments]] = []
        for slot, (choice, notes) in zip(range(block.start, block.stop), chosen, strict=True):
            got = next(fetched) if choice is not None else ()
            attempt = choice.attempt if choice is not None else ATTEMPTS + 1
            if isinstance(got, DecodeError):
                assert choice is not None
                notes = [*notes, Note(slot, choice.video.video_id, attempt, got.code, got.reason)]
                attempt, got = attempt + 1, ()
            rows.append((slot, attempt, notes, got))
        rows += [(-1, 0, [], ())] * block.padding
        return {
            "step": np.full(len(rows), block.step),
            "slot": np.array([row[0] for row in rows], np.int64),
            "attempt": np.array([row[1] for row in rows], np.int64),
            "notes": _objects([pack_notes(row[2]) for row in rows]),
            "starts": _objects([pack_starts(row[3]) for row in rows]),
            "bytes": _objects([b"".join(data for _, data in row[3]) for row in rows]),
        }


def choose_known_good(
    maker: ClipMaker, slot: int, known_bad: Mapping[int, tuple[str, str]], first: int = 0
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


class Masker:
    """Draws and, where the method follows motion, flow to `visible`.

    Args:
        method: the method's record.
        options: its section of the recipe.
        source: where motion comes from; None for a method without motion.
    """

    def __init__(self, method: Method, options: MethodOptions, source: MotionSource | None) -> None:
        self._method, self._options, self._source = method, options, source

    def __call__(self, maker: ClipMaker, slot: int, frames: Frames) -> NDArray[np.bool_]:
        """Mask the views of one slot: (V, T, H, W, 3) uint8 -> (V, N) bool."""
        grid = maker.spec.grid
        pairs = self._method.pairs(self._options, grid.num_frames)
        flow = self._source(frames, pairs) if self._source is not None and pairs else None
        return self._method.mask(maker.noise(slot), flow, grid, self._options)

    def of_nothing(self, maker: ClipMaker) -> NDArray[np.bool_]:
        """Return the mask of a row of weight zero: (V, N), as many tokens as any other."""
        grid = maker.spec.grid
        visible = np.zeros((maker.spec.views, grid.tokens), np.bool_)
        visible[:, : self._method.num_visible(self._options, grid)] = True
        return visible


class DecodeStage:
    """Bytes to frames and, for motion that comes from a CPU, to masks.

    Args:
        maker: of the run's clips.
        limits: of the decode child.
        masker: None if the mask is made by a stage of its own.
        known_bad: videos in quarantine, which are no spares either.
    """

    def __init__(
        self, maker: ClipMaker, limits: Limits, masker: Masker | None, known_bad: Mapping[int, tuple[str, str]]
    ) -> None:
        self.spec = StageSpec("decode", frozenset(READ_COLUMNS), clip_columns(maker, visible=masker is not None))
        self._maker, self._masker, self._known_bad = maker, masker, known_bad
        grid = maker.spec.grid
        self._shape = (maker.spec.views, grid.num_frames, grid.height, grid.width, 3)
        self._sandbox = Sandbox(int(np.prod(self._shape)), limits)

    def __call__(self, batch: Batch) -> Batch:
        """Slots in, their views out, in the same order."""
        slots, views = len(batch["slot"]), self._maker.spec.views
        out = {
            name: np.zeros((slots, views, *column.shape), column.dtype)
            for name, column in self.spec.gives.items()
            if column.dtype != "object"
        }
        out["step"][:] = batch["step"][:, None]
        out["view"][:] = np.arange(views)
        out["slot"][:], out["video_id"][:] = -1, -1
        notes = np.full((slots, views), "", object)
        jobs, places = self._jobs(batch)
        outcomes = self._sandbox.run(jobs)
        rest = [place for place in range(slots) if place not in places]
        later: list[tuple[int, int, list[Note]]] = []
        for place, (choice, outcome) in zip(places.keys(), zip(places.values(), outcomes, strict=True), strict=True):
            already = unpack_notes(batch["notes"][place])
            if isinstance(outcome, DecodeError):
                note = Note(choice.slot, choice.video.video_id, choice.attempt, outcome.code, outcome.reason)
                later.append((place, choice.attempt + 1, [*already, note]))
            else:
                assert outcome.frames is not None
                self._fill(out, place, choice, outcome.frames)
                notes[place, 0] = pack_notes(already)
        for place in rest:
            if batch["slot"][place] >= 0:
                later.append((place, int(batch["attempt"][place]), unpack_notes(batch["notes"][place])))
            else:
                self._blank(out, place)
        for place, attempt, so_far in later:  # the rare path: spares, one at a time
            notes[place, 0] = pack_notes(self._substitute(out, place, int(batch["slot"][place]), attempt, so_far))
        out["notes"] = notes
        return {name: values.reshape(slots * views, *values.shape[2:]) for name, values in out.items()}

    def _jobs(self, batch: Batch) -> tuple[list[Any], dict[int, Choice]]:
        jobs, places = [], {}
        for place, slot in enumerate(batch["slot"]):
            if slot < 0 or not len(batch["bytes"][place]):
                continue
            choice = self._maker.choose(int(slot), int(batch["attempt"][place]))
            segments = unpack_segments(batch["starts"][place], batch["bytes"][place])
            jobs.append(self._maker.job(choice, segments))
            places[place] = choice
        return jobs, places

    def _fill(self, out: Batch, place: int, choice: Choice, frames: Frames) -> None:
        out["frames"][place] = frames
        out["slot"][place], out["video_id"][place] = choice.slot, choice.video.video_id
        out["start"][place], out["attempt"][place], out["weight"][place] = choice.start, choice.attempt, 1
        if self._masker is not None:
            out["visible"][place] = self._masker(self._maker, choice.slot, out["frames"][place])

    def _blank(self, out: Batch, place: int) -> None:
        """Make a row of weight zero; its frames stay black."""
        if self._masker is not None:
            out["visible"][place] = self._masker.of_nothing(self._maker)

    def _substitute(self, out: Batch, place: int, slot: int, attempt: int, so_far: list[Note]) -> list[Note]:
        """Try spare videos for a slot; after the last one it is skipped, with weight zero."""
        while attempt <= ATTEMPTS:
            choice, passed = choose_known_good(self._maker, slot, self._known_bad, attempt)
            so_far = [*so_far, *passed]
            if choice is None:
                break
            (segments,) = fetch(self._maker, [choice])
            failed: Any = segments
            if not isinstance(segments, DecodeError):
                failed = self._sandbox.one(self._maker.job(choice, segments))
                if not isinstance(failed, DecodeError):
                    self._fill(out, place, choice, failed.frames)
                    return so_far
            so_far = [*so_far, Note(slot, choice.video.video_id, choice.attempt, failed.code, failed.reason)]
            attempt = choice.attempt + 1
        self._blank(out, place)
        out["slot"][place], out["attempt"][place] = slot, ATTEMPTS + 1
        return so_far

    def close(self) -> None:
        """End the decode child."""
        self._sandbox.close()


class MaskStage:
    """Frames to masks, for motion that comes from a network on a device.

    Args:
        maker: of the run's clips.
        masker: with its source on the device.
    """

    def __init__(self, maker: ClipMaker, masker: Masker) -> None:
        before = clip_columns(maker, visible=False)
        self.spec = StageSpec("mask", frozenset(before), clip_columns(maker, visible=True))
        self._maker, self._masker = maker, masker

    def __call__(self, batch: Batch) -> Batch:
        """Clips in, the same clips with `visible` out."""
        views = self._maker.spec.views
        slots = len(batch["slot"]) // views
        visible = np.empty((slots, views, self._maker.spec.grid.tokens), np.bool_)
        for place in range(slots):
            rows = slice(place * views, (place + 1) * views)
            skipped = not batch["weight"][place * views]
            visible[place] = (
                self._masker.of_nothing(self._maker)
                if skipped
                else self._masker(self._maker, int(batch["slot"][place * views]), batch["frames"][rows])
            )
        return {**batch, "visible": visible.reshape(slots * views, -1)}
