"""Reading checkpoints: which ones are whole, what is in them, which ones may go. manifest.py writes them.

A reader of any number of ranks takes the pieces that it needs, and checks each of them.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from system import storage
from system.errors import CheckpointFault, ResumeError, WeightsError
from system.train.ledger import SegmentRef, read_segment, ref_from
from system.train.manifest import DAMAGED, FOLDER, MANIFEST, VERSION, Piece, step_uri

if TYPE_CHECKING:
    from system.train.fragments import Fragment


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        uri: its folder.
        step: the next step.
        state: plain values; where the run is.
        shapes: full shape of every parameter.
        pieces: all pieces of it.
        ledger: what the run has trained on; None for one that is older than the ledger.
    """

    uri: str
    step: int
    state: dict[str, Any]
    shapes: dict[str, list[int]]
    pieces: tuple[Piece, ...]
    ledger: SegmentRef | None = None

    @property
    def optimizer_step(self) -> int:
        """Optimizer steps taken so far."""
        return int(self.state["optimizer_step"])

    def fill(self, fragments: Sequence[Fragment]) -> None:
        """Overwrite the values of fragments with the stored ones.

        Only the pieces that overlap them are read, neighbouring ones together, and each is checked.

        Raises:
            CheckpointFault: if bytes are missing, or do not match their checksum: then it is marked as damaged.
            ResumeError: if the model has a parameter that the checkpoint does not, or of another size.
            StorageFault: if storage does not answer: that says nothing about the checkpoint.
        """
        by_state = self._by_state()
        wanted: dict[Piece, list[Fragment]] = {}
        for fragment in fragments:
            overlapping = _matching(by_state.get((fragment.name, fragment.state), ()), fragment)
            covered = sum(
                min(piece.start + piece.numel, fragment.stop) - max(piece.start, fragment.start)
                for piece in overlapping
            )
            if covered != fragment.values.numel():
                raise ResumeError(
                    f"{self.uri} holds {covered} of {fragment.values.numel()} values of {fragment.state} of"
                    f" {fragment.name}: the model of the recipe is not the one of the run"
                )
            for piece in overlapping:
                wanted.setdefault(piece, []).append(fragment)
        for file in sorted({piece.file for piece in wanted}):
            self._fill_from(file, {piece: parts for piece, parts in wanted.items() if piece.file == file})

    def _by_state(self) -> dict[tuple[str, str], list[Piece]]:
        found: dict[tuple[str, str], list[Piece]] = {}
        for piece in self.pieces:
            found.setdefault((piece.name, piece.state), []).append(piece)
        return found

    def _fill_from(self, file: str, wanted: dict[Piece, list[Fragment]]) -> None:
        ranges = [(piece.offset, piece.offset + 4 * piece.numel) for piece in wanted]
        # Who looks which checkpoint is the newest has no tensors, and torch takes a second to import.
        import torch  # noqa: PLC0415

        uri = storage.join(self.uri, file)
        wholes = storage.merge_ranges(ranges)
        try:
            tasks: list[Callable[[], bytes]] = [partial(storage.read, uri, *whole) for whole in wholes]
            data = dict(zip(wholes, storage.in_parallel(tasks), strict=True))
        except storage.MissingError as error:
            raise CheckpointFault(f"{uri}: {error}") from error
        for (start, stop), (piece, fragments) in zip(ranges, wanted.items(), strict=True):
            whole = next(whole for whole in wholes if whole[0] <= start and stop <= whole[1])
            body = data[whole][start - whole[0] : stop - whole[0]]
            if zlib.crc32(body) != piece.crc32:
                body = storage.read(uri, start, stop)  # once more: a bad read is no bad checkpoint
            if zlib.crc32(body) != piece.crc32:
                mark_damaged(self.uri, f"{file}: {piece.state} of {piece.name} does not match its checksum")
                raise CheckpointFault(f"{uri}: {piece.state} of {piece.name} does not match its checksum")
            values = torch.frombuffer(bytearray(body), dtype=torch.float32)
            for fragment in fragments:
                first = max(piece.start, fragment.start)
                last = min(piece.start + piece.numel, fragment.stop)
                fragment.values[first - fragment.start : last - fragment.start].copy_(
                    values[first - piece.start : last - piece.start]
                )


def _matching(pieces: Iterable[Piece], fragment: Fragment) -> list[Piece]:
    return [piece for piece in pieces if piece.start < fragment.stop and fragment.start < piece.start + piece.numel]


def mark_damaged(checkpoint_uri: str, reason: str) -> None:
    """Mark a checkpoint so that nobody tries it again."""
    storage.write(storage.join(checkpoint_uri, DAMAGED), json.dumps({"reason": reason}).encode())


def complete_steps(run_uri: str) -> list[int]:
    """Return the steps whose manifests exist and are not marked as damaged, ascending."""
    return _complete(_folders(run_uri))


def _folders(run_uri: str) -> dict[int, list[str]]:
    """Return the objects of every checkpoint, whole or not, by step."""
    folders: dict[int, list[str]] = {}
    for item in storage.list_objects(storage.join(run_uri, FOLDER), missing_ok=True):
        step = item.uri.rpartition("/")[0].rpartition("/step_")[2]
        if step.isdigit():
            folders.setdefault(int(step), []).append(item.uri)
    return folders


def _complete(folders: dict[int, list[str]], *, marked: bool = False) -> list[int]:
    """Return the steps that have a manifest, those that are marked as damaged among them if wanted."""
    names = {step: {uri.rpartition("/")[2] for uri in uris} for step, uris in folders.items()}
    return sorted(step for step, found in names.items() if MANIFEST in found and (marked or DAMAGED not in found))


def open_checkpoint(run_uri: str, step: int) -> Checkpoint:
    """Open a checkpoint: its manifest must be whole, and every file as long as it says.

    Raises:
        CheckpointFault: if anything is missing, torn or of another length, or is looked for in another folder.
        ResumeError: if another version of this system wrote it.
        StorageFault: if storage does not answer.
    """
    folder = step_uri(run_uri, step)
    try:
        body, _, checksum = storage.read(storage.join(folder, MANIFEST)).rpartition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            raise CheckpointFault(f"{folder}/{MANIFEST} is torn")
        manifest = json.loads(body)
        if manifest["version"] != VERSION:
            raise ResumeError(f"{folder} is a checkpoint of version {manifest['version']}, this is {VERSION}")
        state_name = manifest.get("state", "state.json")
        _refuse_elsewhere(folder, {state_name, *manifest["files"], *(each["file"] for each in manifest["pieces"])})
        state_bytes = storage.read(storage.join(folder, state_name))
        if hashlib.sha256(state_bytes).hexdigest() != manifest["state_sha256"]:
            raise CheckpointFault(f"{folder}/{state_name} does not match its checksum")
        ledger = ref_from(manifest.get("ledger"))
        if ledger is not None:
            read_segment(run_uri, ledger)
        for file, num_bytes in manifest["files"].items():
            if storage.size(storage.join(folder, file)) != num_bytes:
                raise CheckpointFault(f"{folder}/{file} is not {num_bytes} bytes long")
    except storage.MissingError as error:
        raise CheckpointFault(f"{folder}: {error}") from error
    pieces = tuple(Piece(**piece) for piece in manifest["pieces"])
    return Checkpoint(folder, step, json.loads(state_bytes), manifest["shapes"], pieces, ledger)


def _refuse_elsewhere(folder: str, names: Iterable[str]) -> None:
    """Refuse a manifest that names what does not lie beside it: whoever wrote it would choose what is read here."""
    for name in names:
        if "/" in name or name in ("", ".", ".."):
            raise CheckpointFault(f"{folder}/{MANIFEST} names {name!r:.80}, which is no file of its folder")


def latest(run_uri: str, say: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
    """Open the newest checkpoint that is whole, and say which newer ones are not.

    Returns:
        None if there is no checkpoint at all.

    Raises:
        CheckpointFault: if there are checkpoints and none of them is whole.
        ResumeError: if another version of this system wrote the newest.
        StorageFault: if storage does not answer.
    """
    folders = _folders(run_uri)
    for step in reversed(_complete(folders)):
        try:
            return open_checkpoint(run_uri, step)
        except CheckpointFault as error:
            say(f"checkpoint {step} is passed over: {error}")
    steps = _complete(folders, marked=True)
    if steps:  # beginning anew would leave out what they were trained on
        raise CheckpointFault(f"{run_uri}: none of its {len(steps)} checkpoints is whole")
    return None


def chosen(run_uri: str, step: int | None, say: Callable[[str], None] = lambda line: None) -> Checkpoint:
    """Open the checkpoint of a step that a user named; of None the newest whole one.

    Raises:
        WeightsError: if there is none.
        CheckpointFault: if it is damaged.
        ResumeError: if another version of this system wrote it.
    """
    if step is None:
        found = latest(run_uri, say)
        if found is None:
            raise WeightsError(f"{run_uri} holds no whole checkpoint")
        return found
    there = complete_steps(run_uri)
    if step not in there:
        raise WeightsError(f"{run_uri} has checkpoints of the steps {there}, --step {step} is none of them")
    return open_checkpoint(run_uri, step)


def retire(run_uri: str, newest: int, keep: int, keep_every: int | None) -> list[int]:
    """Delete checkpoints that are no longer kept, manifest first, and what an interrupted save left behind.

    Never deletes the newest good one, nor anything newer than it: what is newer was passed over as damaged.

    Args:
        run_uri: the run's folder.
        newest: step of a checkpoint that was opened since it was written.
        keep: newest complete checkpoints that stay.
        keep_every: multiples of this stay for ever.

    Returns:
        The steps that were deleted.
    """
    folders = _folders(run_uri)
    complete = [step for step in _complete(folders) if step <= newest]
    stay = set(complete[-keep:]) | {step for step in complete if keep_every and step % keep_every == 0}
    gone = sorted(step for step in folders if step < newest and step not in stay)
    for step in gone:
        storage.delete(sorted(folders[step], key=lambda uri: not uri.endswith(MANIFEST)))
        storage.remove_folder(step_uri(run_uri, step))
    return gone
