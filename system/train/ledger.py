"""What a run has trained on: segments under `ledger/`, each the record of the steps between two checkpoints.

    ledger/00000020-00000040-1f6e0c92b7a4d3e8.json

A segment is written before the manifest that names it, and each names the one before it: whoever starts from a
checkpoint finds the whole history of its weights, and nothing of the steps that were lost and done again. A segment's
name holds its checksum, so none is ever overwritten by another one; retention never deletes any.

Per step it holds 32 bytes: how many clips entered the model, and three sums over them (core/identity.py): who they
were, which pixels they had, which masks. Where masks come from a network, whose numbers depend on the device, there
are 32 more: a sample of the masks' bits.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from system import storage
from system.core.identity import ROOT, chained
from system.data.notes import Note
from system.errors import CheckpointFault, ResumeError

FOLDER = "ledger"
VERSION = 1
# 64-bit words of the sample of a step's mask bits.
SAMPLE_WORDS = 4
# Columns of `Segment.records` before the sample.
CLIPS, IDENTITY, PIXELS, MASKS = range(4)

Records = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """What a manifest says of a segment.

    Attributes:
        name: of the object under `ledger/`.
        sha256: of its bytes.
        chain: its last link.
    """

    name: str
    sha256: str
    chain: str

    def as_dict(self) -> dict[str, str]:
        """Return plain values."""
        return {"name": self.name, "sha256": self.sha256, "chain": self.chain}


@dataclass(frozen=True, slots=True)
class Made:
    """Under what conditions the steps of a segment were made; not part of the chain.

    Attributes:
        ranks: that shared each step.
        generation: of the run's lease.
        decoders: name -> build.
        mask_device: name of the device on which a network made the masks; "" where none did.
    """

    ranks: int
    generation: int
    decoders: dict[str, str] = field(default_factory=dict)
    mask_device: str = ""


@dataclass(frozen=True)
class Segment:
    """The record of steps [first_step, stop_step).

    Attributes:
        previous: the segment before it; None for the run's first.
        first_step: its first step.
        stop_step: the step after its last one.
        slots_per_step: slots of the plan that a step takes.
        records: (steps, 4) uint64, or (steps, 4 + SAMPLE_WORDS): clips, identity, pixels, masks, sample.
        passed_over: videos that did not stand in their slot, and why. A slot's stand-in is the spare of the attempt
            after its last note; a slot with notes of all attempts was skipped.
        not_trained: step -> why its gradient was not used: its slots count as skipped.
        made: under what conditions.
    """

    previous: SegmentRef | None
    first_step: int
    stop_step: int
    slots_per_step: int
    records: Records
    passed_over: tuple[Note, ...] = ()
    not_trained: dict[int, str] = field(default_factory=dict)
    made: Made = Made(1, 0)

    @property
    def slots(self) -> range:
        """The slots of the plan that its steps consumed."""
        return range(self.first_step * self.slots_per_step, self.stop_step * self.slots_per_step)

    @property
    def chain(self) -> str:
        """The hash chain's link after its last step."""
        link = self.previous.chain if self.previous else ROOT
        for step, record in zip(range(self.first_step, self.stop_step), self.records[:, :4].tolist(), strict=True):
            link = chained(link, step, *record, int(step in self.not_trained))
        return link

    def record(self, step: int) -> Records:
        """Return one step's row of the records."""
        row: Records = self.records[step - self.first_step]
        return row


def _packed(records: Records) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(records, "<u8").tobytes()).decode()
    return {"columns": records.shape[1], "data": data}


def _unpacked(values: dict[str, Any]) -> Records:
    words = np.frombuffer(base64.b64decode(values["data"]), "<u8").astype(np.uint64)
    return words.reshape(-1, values["columns"])


def to_bytes(segment: Segment) -> bytes:
    """Write a segment as JSON."""
    values = {
        "version": VERSION,
        "previous": segment.previous.as_dict() if segment.previous else None,
        "first_step": segment.first_step,
        "stop_step": segment.stop_step,
        "slots_per_step": segment.slots_per_step,
        "records": _packed(segment.records),
        "passed_over": [
            [note.slot, note.video_id, note.attempt, note.code, note.reason] for note in segment.passed_over
        ],
        "not_trained": {str(step): reason for step, reason in segment.not_trained.items()},
        "made": {
            "ranks": segment.made.ranks,
            "generation": segment.made.generation,
            "decoders": segment.made.decoders,
            "mask_device": segment.made.mask_device,
        },
        "chain": segment.chain,
    }
    return json.dumps(values).encode()


def from_bytes(data: bytes) -> Segment:
    """Read what `to_bytes` wrote.

    Raises:
        CheckpointFault: if its chain is not that of its records.
        ResumeError: if another version of this system wrote it.
    """
    values = json.loads(data)
    if values["version"] != VERSION:
        raise ResumeError(
            f"a segment of the ledger is of version {values['version']}, this is {VERSION}: go on with the version of"
            " this system that wrote it"
        )
    previous = values["previous"]
    segment = Segment(
        SegmentRef(**previous) if previous else None,
        values["first_step"],
        values["stop_step"],
        values["slots_per_step"],
        _unpacked(values["records"]),
        tuple(Note(*each) for each in values["passed_over"]),
        {int(step): reason for step, reason in values["not_trained"].items()},
        Made(**values["made"]),
    )
    if segment.chain != values["chain"]:
        raise CheckpointFault(f"the ledger's steps {segment.first_step} to {segment.stop_step} do not give its chain")
    return segment


def ref_of(segment: Segment) -> SegmentRef:
    """Return what a manifest says of a segment."""
    digest = hashlib.sha256(to_bytes(segment)).hexdigest()
    name = f"{segment.first_step:08d}-{segment.stop_step:08d}-{digest[:16]}.json"
    return SegmentRef(name, digest, segment.chain)


def write_segment(run_uri: str, segment: Segment) -> SegmentRef:
    """Write a segment and return what the manifest says of it."""
    ref = ref_of(segment)
    storage.write(storage.join(run_uri, FOLDER, ref.name), to_bytes(segment))
    return ref


def read_segment(run_uri: str, ref: SegmentRef) -> Segment:
    """Read a segment.

    Raises:
        CheckpointFault: if it is gone, or not the one that is named.
    """
    uri = storage.join(run_uri, FOLDER, ref.name)
    try:
        data = storage.read(uri)
    except storage.MissingError as error:
        raise CheckpointFault(f"{uri}: this part of the ledger is gone") from error
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise CheckpointFault(f"{uri}: this part of the ledger does not match its checksum")
    segment = from_bytes(data)
    if segment.chain != ref.chain:
        raise CheckpointFault(f"{uri}: this part of the ledger does not end in the link that is named")
    return segment


def history(run_uri: str, last: SegmentRef | None) -> list[Segment]:
    """Return the segments that lead to one, oldest first.

    Raises:
        CheckpointFault: if one is gone, or damaged.
    """
    found: list[Segment] = []
    while last is not None:
        segment = read_segment(run_uri, last)
        found.append(segment)
        last = segment.previous
    return found[::-1]


def segment_names(run_uri: str) -> list[str]:
    """Return the names of all segments, those of lost steps among them."""
    items = storage.list_objects(storage.join(run_uri, FOLDER), missing_ok=True)
    return [item.uri.rpartition("/")[2] for item in items]


def ref_from(values: dict[str, str] | None) -> SegmentRef | None:
    """Read what `SegmentRef.as_dict` wrote."""
    return SegmentRef(**values) if values else None


def notes_by_slot(segments: Sequence[Segment]) -> dict[int, list[Note]]:
    """Return why videos did not stand in their slots: slot -> notes in the order of the attempts."""
    found: dict[int, list[Note]] = {}
    for segment in segments:
        for note in segment.passed_over:
            found.setdefault(note.slot, []).append(note)
    return {slot: sorted(notes, key=lambda note: note.attempt) for slot, notes in found.items()}
