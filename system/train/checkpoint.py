"""Checkpoints: independent of the number of ranks, free of pickle, committed by a manifest that is written last.

    checkpoints/step_00000123/rank_00000.safetensors   what rank 0 owned, flat float32 pieces
                              state.json               where the run is, plain values
                              manifest.json            the commit marker: sizes and checksums of all of it

`step_N` is the state before step N: N steps are done, and N is the next one. The manifest lists, for every parameter and
state, the pieces that hold it; a reader of any number of ranks takes those that it needs.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from system import storage
from system.errors import CheckpointFault, ResumeError, StorageFault
from system.train.fragments import Fragment

VERSION = 1
FOLDER = "checkpoints"
MANIFEST = "manifest.json"
# A checkpoint whose content turned out to be damaged is marked with this and passed over from then on.
DAMAGED = "damaged.json"


@dataclass(frozen=True, slots=True)
class Piece:
    """Where some values of one state of one parameter lie.

    Attributes:
        name: of the parameter.
        state: which state.
        start: first value in the flattened parameter.
        numel: number of values.
        file: in the checkpoint's folder.
        offset: first byte in the file.
        crc32: of the bytes.
    """

    name: str
    state: str
    start: int
    numel: int
    file: str
    offset: int
    crc32: int


@dataclass(frozen=True, slots=True)
class RankFile:
    """What one rank wrote: its file, the file's size in bytes, and the pieces in it."""

    file: str
    num_bytes: int
    pieces: tuple[Piece, ...]


def step_uri(run_uri: str, step: int) -> str:
    """Return the folder of the checkpoint before a step."""
    return storage.join(run_uri, FOLDER, f"step_{step:08d}")


def write_rank_file(run_uri: str, step: int, rank: int, fragments: Sequence[Fragment]) -> RankFile:
    """Write what one rank owns.

    Args:
        run_uri: the run's folder.
        step: the next step.
        rank: of the writer.
        fragments: its pieces.

    Returns:
        The record for the manifest.
    """
    name = f"rank_{rank:05d}.safetensors"
    values = {f"{part.state}/{part.name}": part.values.detach().cpu().contiguous() for part in fragments}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        save_file(values, path)
        offsets = _offsets(path)
        pieces = tuple(
            Piece(
                part.name,
                part.state,
                part.start,
                part.values.numel(),
                name,
                offsets[f"{part.state}/{part.name}"],
                zlib.crc32(values[f"{part.state}/{part.name}"].numpy().tobytes()),
            )
            for part in fragments
        )
        num_bytes = path.stat().st_size
        storage.upload(path, storage.join(step_uri(run_uri, step), name))
    return RankFile(name, num_bytes, pieces)


def _offsets(path: Path) -> dict[str, int]:
    """Return where each tensor of a safetensors file begins: its header is 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {key: 8 + length + value["data_offsets"][0] for key, value in header.items() if key != "__metadata__"}


def commit(
    run_uri: str, step: int, files: Sequence[RankFile], shapes: dict[str, list[int]], state: dict[str, Any]
) -> None:
    """Make a checkpoint exist: check that its pieces cover every parameter, write its state, then its manifest.

    Args:
        run_uri: the run's folder.
        step: the next step.
        files: what the ranks wrote.
        shapes: full shape of every parameter.
        state: plain values; where the run is.

    Raises:
        CheckpointFault: if the pieces do not cover a parameter exactly once.
    """
    pieces = [piece for file in files for piece in file.pieces]
    _check_cover(pieces, shapes)
    folder = step_uri(run_uri, step)
    state_bytes = json.dumps(state, indent=1).encode()
    storage.write(storage.join(folder, "state.json"), state_bytes)
    manifest = {
        "version": VERSION,
        "step": step,
        "state_sha256": hashlib.sha256(state_bytes).hexdigest(),
        "files": {file.file: file.num_bytes for file in files},
        "shapes": shapes,
        "pieces": [asdict(piece) for piece in pieces],
    }
    body = json.dumps(manifest).encode()
    # The last line is the checksum of the first: a torn manifest on a file system is no manifest.
    storage.write(storage.join(folder, MANIFEST), body + b"\n" + hashlib.sha256(body).hexdigest().encode())


def _check_cover(pieces: Sequence[Piece], shapes: dict[str, list[int]]) -> None:
    by_state: dict[tuple[str, str], list[Piece]] = {}
    for piece in pieces:
        by_state.setdefault((piece.name, piece.state), []).append(piece)
    for (name, state), parts in by_state.items():
        end = 0
        for piece in sorted(parts, key=lambda piece: piece.start):
            if piece.start != end:
                raise CheckpointFault(f"{state} of {name}: a piece starts at {piece.start}, the last one ended at {end}")
            end += piece.numel
        if end != int(np.prod(shapes[name], dtype=np.int64)):
            raise CheckpointFault(f"{state} of {name}: pieces hold {end} values of a parameter of shape {shapes[name]}")
    missing = set(shapes) - {name for name, _ in by_state}
    if missing:
        raise CheckpointFault(f"no rank wrote {sorted(missing)[0]}, one of {len(missing)} missing parameters")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        uri: its folder.
        step: the next step.
        state: plain values; where the run is.
        shapes: full shape of every parameter.
        pieces: all pieces of it.
    """

    uri: str
    step: int
    state: dict[str, Any]
    shapes: dict[str, list[int]]
    pieces: tuple[Piece, ...]

    @property
    def optimizer_step(self) -> int:
        """Optimizer steps taken so far."""
        return int(self.state["optimizer_step"])

    def fill(self, fragments: Sequence[Fragment]) -> None:
        """Overwrite the values of fragments with the stored ones.

        Only the pieces that overlap them are read, neighbouring ones together, and each is checked.

        Raises:
            CheckpointFault: if bytes are missing or do not match their checksum; the checkpoint is marked as damaged.
            ResumeError: if the model has a parameter that the checkpoint does not, or of another size.
        """
        wanted: dict[Piece, list[Fragment]] = {}
        for fragment in fragments:
            overlapping = [
                piece
                for piece in self._of().get((fragment.name, fragment.state), ())
                if piece.start < fragment.stop and fragment.start < piece.start + piece.numel
            ]
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

    def _of(self) -> dict[tuple[str, str], list[Piece]]:
        found: dict[tuple[str, str], list[Piece]] = {}
        for piece in self.pieces:
            found.setdefault((piece.name, piece.state), []).append(piece)
        return found

    def _fill_from(self, file: str, wanted: dict[Piece, list[Fragment]]) -> None:
        ranges = [(piece.offset, piece.offset + 4 * piece.numel) for piece in wanted]
        uri = storage.join(self.uri, file)
        wholes = storage.merge_ranges(ranges)
        try:
            tasks: list[Callable[[], bytes]] = [partial(storage.read, uri, *whole) for whole in wholes]
            data = dict(zip(wholes, storage.in_parallel(tasks), strict=True))
        except (storage.MissingError, StorageFault) as error:
            raise CheckpointFault(f"{uri}: {error}") from error
        for (start, stop), (piece, fragments) in zip(ranges, wanted.items(), strict=True):
            whole = next(whole for whole in wholes if whole[0] <= start and stop <= whole[1])
            body = data[whole][start - whole[0] : stop - whole[0]]
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


def mark_damaged(checkpoint_uri: str, reason: str) -> None:
    """Mark a checkpoint so that nobody tries it again."""
    storage.write(storage.join(checkpoint_uri, DAMAGED), json.dumps({"reason": reason}).encode())


def complete_steps(run_uri: str) -> list[int]:
    """Return the steps whose manifests exist and are not marked as damaged, ascending."""
    prefix = storage.join(run_uri, FOLDER)
    manifests, damaged = set(), set()
    for item in storage.list_objects(prefix, missing_ok=True):
        folder, _, name = item.uri.rpartition("/")
        step = folder.rpartition("/step_")[2]
        if step.isdigit() and name in (MANIFEST, DAMAGED):
            (manifests if name == MANIFEST else damaged).add(int(step))
    return sorted(manifests - damaged)


def open_checkpoint(run_uri: str, step: int) -> Checkpoint:
    """Open a checkpoint: its manifest must be whole, and every file as long as it says.

    Raises:
        CheckpointFault: if anything is missing, torn or of another length.
    """
    folder = step_uri(run_uri, step)
    try:
        body, _, checksum = storage.read(storage.join(folder, MANIFEST)).rpartition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            raise CheckpointFault(f"{folder}/{MANIFEST} is torn")
        manifest = json.loads(body)
        if manifest["version"] != VERSION:
            raise ResumeError(f"{folder} is a checkpoint of version {manifest['version']}, this is {VERSION}")
        state_bytes = storage.read(storage.join(folder, "state.json"))
        if hashlib.sha256(state_bytes).hexdigest() != manifest["state_sha256"]:
            raise CheckpointFault(f"{folder}/state.json does not match its checksum")
        for file, num_bytes in manifest["files"].items():
            if storage.size(storage.join(folder, file)) != num_bytes:
                raise CheckpointFault(f"{folder}/{file} is not {num_bytes} bytes long")
    except storage.MissingError as error:
        raise CheckpointFault(f"{folder}: {error}") from error
    pieces = tuple(Piece(**piece) for piece in manifest["pieces"])
    return Checkpoint(folder, step, json.loads(state_bytes), manifest["shapes"], pieces)


def latest(run_uri: str, say: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
    """Open the newest checkpoint that is whole, and say which newer ones are not.

    Returns:
        None if there is no checkpoint at all.

    Raises:
        CheckpointFault: if there are checkpoints and none of them is whole.
    """
    steps = complete_steps(run_uri)
    for step in reversed(steps):
        try:
            return open_checkpoint(run_uri, step)
        except CheckpointFault as error:
            say(f"checkpoint {step} is passed over: {error}")
    if steps:
        raise CheckpointFault(f"{run_uri}: none of its {len(steps)} checkpoints is whole")
    return None


def retire(run_uri: str, keep: int, keep_every: int | None) -> list[int]:
    """Delete checkpoints that are no longer kept, manifest first, and what an interrupted save left behind.

    Never deletes the newest complete one, nor anything newer than it.

    Args:
        run_uri: the run's folder.
        keep: newest complete checkpoints that stay.
        keep_every: multiples of this stay for ever.

    Returns:
        The steps that were deleted.
    """
    complete = complete_steps(run_uri)
    if not complete:
        return []
    stay = set(complete[-keep:]) | {step for step in complete if keep_every and step % keep_every == 0}
    folders: dict[int, list[str]] = {}
    for item in storage.list_objects(storage.join(run_uri, FOLDER), missing_ok=True):
        step = item.uri.rpartition("/")[0].rpartition("/step_")[2]
        if step.isdigit():
            folders.setdefault(int(step), []).append(item.uri)
    gone = sorted(step for step in folders if step < complete[-1] and step not in stay)
    for step in gone:
        storage.delete(sorted(folders[step], key=lambda uri: not uri.endswith(MANIFEST)))
        storage.remove_folder(step_uri(run_uri, step))
    return gone
