"""Writing a checkpoint: each rank its file, then one manifest, whose existence is the commit.

    checkpoints/step_00000123/rank_00000-g00007.safetensors   what rank 0 owned, flat float32 pieces
                              state-g00007.json               where the run is, plain values
                              manifest.json                   the commit marker: sizes and checksums of all of it

`step_N` is the state before step N: N steps are done, and N is the next one. The manifest lists, for every parameter
and state, the pieces that hold it. No pickle, and nothing that depends on the number of ranks. checkpoint.py reads.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from system import storage
from system.errors import CheckpointFault

if TYPE_CHECKING:
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


def _suffix(generation: int) -> str:
    """Return what a writer's names end in: two writers of one run never write the same object."""
    return f"-g{generation:05d}" if generation else ""


def write_rank_file(run_uri: str, step: int, rank: int, fragments: Sequence[Fragment], generation: int = 0) -> RankFile:
    """Write what one rank owns.

    Args:
        run_uri: the run's folder.
        step: the next step.
        rank: of the writer.
        fragments: its pieces.
        generation: of the run's lease; 0: none.

    Returns:
        The record for the manifest.
    """
    from safetensors.torch import save_file  # noqa: PLC0415  torch, which readers of manifests do without

    name = f"rank_{rank:05d}{_suffix(generation)}.safetensors"
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
                zlib.crc32(values[f"{part.state}/{part.name}"].numpy().data),
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
    run_uri: str,
    step: int,
    files: Sequence[RankFile],
    shapes: dict[str, list[int]],
    state: dict[str, Any],
    generation: int = 0,
    fenced: Callable[[], None] = lambda: None,
) -> None:
    """Make a checkpoint exist: check that its pieces cover every parameter, write its state, then its manifest.

    Args:
        run_uri: the run's folder.
        step: the next step.
        files: what the ranks wrote.
        shapes: full shape of every parameter.
        state: plain values; where the run is. Its `ledger` is named in the manifest too.
        generation: of the run's lease; 0: none.
        fenced: called last before the manifest is written; raises if another job has taken the run over.

    Raises:
        CheckpointFault: if the pieces do not cover a parameter exactly once.
    """
    pieces = [piece for file in files for piece in file.pieces]
    _check_cover(pieces, shapes)
    folder = step_uri(run_uri, step)
    state_bytes = json.dumps(state, indent=1).encode()
    state_name = f"state{_suffix(generation)}.json"
    storage.write(storage.join(folder, state_name), state_bytes)
    manifest = {
        "version": VERSION,
        "step": step,
        "generation": generation,
        "ledger": state.get("ledger"),
        "state": state_name,
        "state_sha256": hashlib.sha256(state_bytes).hexdigest(),
        "files": {file.file: file.num_bytes for file in files},
        "shapes": shapes,
        "pieces": [asdict(piece) for piece in pieces],
    }
    body = json.dumps(manifest).encode()
    fenced()
    storage.delete([storage.join(folder, DAMAGED)])  # of an earlier checkpoint of the same step
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
                raise CheckpointFault(
                    f"{state} of {name}: a piece starts at {piece.start}, the last one ended at {end}"
                )
            end += piece.numel
        if end != int(np.prod(shapes[name], dtype=np.int64)):
            raise CheckpointFault(f"{state} of {name}: pieces hold {end} values of a parameter of shape {shapes[name]}")
    missing = set(shapes) - {name for name, _ in by_state}
    if missing:
        raise CheckpointFault(f"no rank wrote {sorted(missing)[0]}, one of {len(missing)} missing parameters")
