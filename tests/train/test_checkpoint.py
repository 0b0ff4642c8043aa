from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from system import storage
from system.errors import CheckpointFault, ResumeError, StorageFault
from system.train.checkpoint import complete_steps, latest, open_checkpoint, retire
from system.train.failures import signature_of
from system.train.fragments import Fragment
from system.train.manifest import MANIFEST, RankFile, commit, step_uri, write_rank_file

SHAPES = {"weight": [3, 4], "bias": [5]}


def values(seed: int) -> dict[tuple[str, str], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        (name, state): torch.randn(torch.Size(shape).numel(), generator=generator)
        for name, shape in SHAPES.items()
        for state in ("param", "exp_avg")
    }


def pieces(seed: int, cuts: list[int]) -> list[list[Fragment]]:
    """The same values, dealt out to ranks: rank r holds [cuts[r], cuts[r + 1]) of every tensor."""
    return [
        [
            Fragment(name, state, min(start, len(flat)), flat[start:stop])
            for (name, state), flat in values(seed).items()
            if start < len(flat)
        ]
        for start, stop in pairwise(cuts)
    ]


def write(run: Path, step: int, cuts: list[int], *, finish: bool = True) -> list[RankFile]:
    files = [write_rank_file(str(run), step, rank, parts) for rank, parts in enumerate(pieces(step, cuts))]
    if finish:
        commit(str(run), step, files, SHAPES, {"optimizer_step": step, "note": "é"})
    return files


def read(run: Path, step: int) -> dict[tuple[str, str], torch.Tensor]:
    found = {key: torch.zeros_like(flat) for key, flat in values(step).items()}
    open_checkpoint(str(run), step).fill([Fragment(*key, 0, flat) for key, flat in found.items()])
    return found


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("cuts", [[0, 12], [0, 5, 12], [0, 1, 2, 11, 12]])
def test_what_any_ranks_wrote_any_other_reads(tmp_path: Path, cuts: list[int]) -> None:
    write(tmp_path, 3, cuts)
    found, wanted = read(tmp_path, 3), values(3)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    part = Fragment("weight", "exp_avg", 4, torch.zeros(3))
    open_checkpoint(str(tmp_path), 3).fill([part])
    assert torch.equal(part.values, wanted["weight", "exp_avg"][4:7])


def test_without_a_manifest_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert latest(str(tmp_path)) is None
    write(tmp_path, 1, [0, 12], finish=False)
    assert latest(str(tmp_path)) is None
    assert complete_steps(str(tmp_path)) == []


def test_pieces_that_overlap_or_leave_a_gap_are_never_committed(tmp_path: Path) -> None:
    files = write(tmp_path, 1, [0, 6, 12], finish=False)
    with pytest.raises(CheckpointFault, match="pieces hold 6 values of a parameter of shape"):
        commit(str(tmp_path), 1, files[:1], SHAPES, {})
    with pytest.raises(CheckpointFault, match="a piece starts at 0, the last one ended at 6"):
        commit(str(tmp_path), 1, [files[0], files[0]], SHAPES, {})
    with pytest.raises(CheckpointFault, match="no rank wrote other, one of 1 missing"):
        commit(str(tmp_path), 1, files, {**SHAPES, "other": [2]}, {})
    assert latest(str(tmp_path)) is None


@pytest.mark.parametrize("harm", ["torn manifest", "torn state", "no state", "short file", "no file"])
def test_a_damaged_checkpoint_is_passed_over_and_said_so(tmp_path: Path, harm: str) -> None:
    for step in (1, 2):
        write(tmp_path, step, [0, 7, 12])
    folder = Path(storage.local_path(step_uri(str(tmp_path), 2)))
    if harm == "torn manifest":
        (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-70])
    elif harm == "torn state":
        flip(folder / "state.json", 5)
    elif harm == "no state":
        (folder / "state.json").unlink()
    elif harm == "short file":
        path = folder / "rank_00001.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    else:
        (folder / "rank_00000.safetensors").unlink()
    said: list[str] = []
    found = latest(str(tmp_path), said.append)
    assert found is not None
    assert found.step == 1
    assert len(said) == 1
    assert said[0].startswith("checkpoint 2 is passed over: ")


def test_a_flipped_bit_is_found_when_it_is_read_and_the_checkpoint_not_tried_again(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path, step, [0, 12])
    path = Path(storage.local_path(step_uri(str(tmp_path), 2))) / "rank_00000.safetensors"
    flip(path, -1)
    with pytest.raises(CheckpointFault, match="does not match its checksum"):
        read(tmp_path, 2)
    assert complete_steps(str(tmp_path)) == [1]
    found = latest(str(tmp_path))
    assert found is not None
    assert found.step == 1
    write(tmp_path, 2, [0, 12])  # the step is reached again
    assert complete_steps(str(tmp_path)) == [1, 2]


def test_storage_that_is_away_says_nothing_against_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1, [0, 12])
    found, part = open_checkpoint(str(tmp_path), 1), Fragment("bias", "param", 0, torch.zeros(5))

    def away(uri: str, start: int = 0, stop: int | None = None) -> bytes:
        raise StorageFault(f"{uri}: away")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read", away)
        with pytest.raises(StorageFault) as fault:  # which the failure policy tries again, at the same step too
            found.fill([part])
    assert signature_of(fault.value) is None
    assert complete_steps(str(tmp_path)) == [1]
    Path(storage.local_path(found.uri), "rank_00000.safetensors").unlink()
    with pytest.raises(CheckpointFault, match="rank_00000"):
        found.fill([part])


def test_when_none_is_whole_a_run_does_not_silently_begin_again(tmp_path: Path) -> None:
    write(tmp_path, 1, [0, 12])
    flip(Path(storage.local_path(step_uri(str(tmp_path), 1))) / "state.json", 3)
    with pytest.raises(CheckpointFault, match="none of its 1 checkpoints is whole"):
        latest(str(tmp_path))


def test_a_newer_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("system.train.manifest.VERSION", 2)
    write(tmp_path, 1, [0, 12])
    with pytest.raises(ResumeError, match="is a checkpoint of version 2, this is 1"):
        open_checkpoint(str(tmp_path), 1)


def test_retention_keeps_the_newest_the_multiples_and_what_is_being_written(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        write(tmp_path, step, [0, 12])
    write(tmp_path, 25, [0, 12], finish=False)  # an interrupted save
    write(tmp_path, 60, [0, 12], finish=False)  # one under way
    assert retire(str(tmp_path), 50, 2, 20) == [10, 25, 30]
    assert complete_steps(str(tmp_path)) == [20, 40, 50]
    assert storage.list_objects(step_uri(str(tmp_path), 60))
    assert not Path(storage.local_path(step_uri(str(tmp_path), 25))).exists()


def test_retention_never_deletes_the_last_good_one(tmp_path: Path) -> None:
    write(tmp_path, 10, [0, 12])
    for step in (20, 30):
        write(tmp_path, step, [0, 12])
        storage.write(storage.join(step_uri(str(tmp_path), step), "damaged.json"), b"{}")
    assert retire(str(tmp_path), 10, 1, None) == []
    assert complete_steps(str(tmp_path)) == [10]


def test_torn_checkpoints_that_were_passed_over_do_not_count_as_the_newest(tmp_path: Path) -> None:
    for step in (20, 25, 30, 40):
        write(tmp_path, step, [0, 12])
    for step in (30, 40):
        flip(Path(storage.local_path(step_uri(str(tmp_path), step))) / "state.json", 3)
    assert retire(str(tmp_path), 25, 1, None) == [20]
    found = latest(str(tmp_path))
    assert found is not None
    assert found.step == 25


def test_when_all_are_marked_as_damaged_a_run_does_not_silently_begin_again(tmp_path: Path) -> None:
    write(tmp_path, 1, [0, 12])
    flip(Path(storage.local_path(step_uri(str(tmp_path), 1))) / "rank_00000.safetensors", -1)
    with pytest.raises(CheckpointFault, match="does not match its checksum"):
        read(tmp_path, 1)
    with pytest.raises(CheckpointFault, match="none of its 1 checkpoints is whole"):
        latest(str(tmp_path))


def test_a_deletion_that_is_interrupted_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        write(tmp_path, step, [0, 12])
    gone: list[str] = []

    def dies(uris: list[str]) -> None:
        gone.extend(uris)
        Path(storage.local_path(uris[0])).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "delete", dies)
    with pytest.raises(KeyboardInterrupt):
        retire(str(tmp_path), 2, 1, None)
    assert gone[0].endswith(MANIFEST)
    assert complete_steps(str(tmp_path)) == [2]


def test_a_manifest_is_plain_text_that_says_what_is_where(tmp_path: Path) -> None:
    write(tmp_path, 4, [0, 12])
    body, _ = (Path(storage.local_path(step_uri(str(tmp_path), 4))) / MANIFEST).read_text().split("\n")
    manifest = json.loads(body)
    assert manifest["shapes"] == SHAPES
    assert {piece["state"] for piece in manifest["pieces"]} == {"param", "exp_avg"}


@pytest.mark.parametrize("key", ["state", "files", "pieces"])
def test_a_manifest_that_names_files_of_other_folders_is_refused(tmp_path: Path, key: str) -> None:
    write(tmp_path, 4, [0, 12])
    path = tmp_path / "checkpoints" / "step_00000004" / MANIFEST
    manifest = json.loads(path.read_bytes().rpartition(b"\n")[0])
    (file,) = manifest["files"]
    elsewhere = f"../step_00000004/{file}"  # it is there, and of the right length
    manifest |= {
        "state": {"state": f"../step_00000004/{manifest['state']}"},
        "files": {"files": {elsewhere: manifest["files"][file]}},
        "pieces": {"pieces": [{**piece, "file": elsewhere} for piece in manifest["pieces"]]},
    }[key]
    body = json.dumps(manifest).encode()
    path.write_bytes(body + b"\n" + hashlib.sha256(body).hexdigest().encode())
    with pytest.raises(CheckpointFault, match="no file of its folder"):
        open_checkpoint(str(tmp_path), 4)
