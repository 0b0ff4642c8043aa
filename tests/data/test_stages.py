from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from system import storage
from system.core.pairs import FramePair
from system.data.assemble import StreamSpec, decode_stage, local_blocks, read_stage, stage_specs
from system.data.clips import ATTEMPTS
from system.data.columns import Batch, StageSpec, check_chain
from system.data.masking import Masker, MaskStage
from system.data.notes import Note, pack_notes, unpack_notes
from system.data.reading import pack_starts, unpack_segments
from system.data.scale import Frames
from system.data.stages import DecodeStage
from system.motion.dis import DIS
from tests.small import stream_spec, tiny_recipe


@pytest.fixture
def spec(generated: Path) -> StreamSpec:
    return stream_spec(tiny_recipe(generated, "data.views=2"), ranks=2)


@pytest.fixture
def decode(spec: StreamSpec) -> Iterator[DecodeStage]:
    stage = decode_stage(spec)
    yield stage
    stage.close()


def block(number: int) -> Batch:
    return {"block": np.array([number])}


def test_a_block_becomes_its_slots_and_they_their_views(spec: StreamSpec, decode: DecodeStage) -> None:
    rows = read_stage(spec)(block(3))
    assert rows["slot"].tolist() == list(range(12, 16))
    clips = decode(rows)
    assert clips["slot"].tolist() == [slot for slot in range(12, 16) for _ in range(2)]
    assert clips["view"].tolist() == [0, 1] * 4
    assert clips["step"].tolist() == [1] * 8
    assert (clips["weight"] == 1).all()
    assert (clips["attempt"] == 0).all()
    assert clips["frames"].std() > 1


def test_columns_are_those_that_the_stages_declare(spec: StreamSpec, decode: DecodeStage) -> None:
    read = read_stage(spec)
    rows = read(block(0))
    assert set(rows) == set(read.spec.gives)
    clips = decode(rows)
    assert set(clips) == set(decode.spec.gives)
    for name, column in decode.spec.gives.items():
        assert clips[name].dtype == np.dtype(column.dtype), name
        assert clips[name].shape == (8, *column.shape), name


def test_the_recipes_chain_fits_and_a_broken_one_is_refused(spec: StreamSpec) -> None:
    check_chain(stage_specs(spec.recipe))
    with pytest.raises(ValueError, match=r"stage x needs the columns \['flow'\]"):
        check_chain([*stage_specs(spec.recipe), StageSpec("x", frozenset({"flow"}), {})])


def test_the_same_block_is_the_same_to_the_last_bit(spec: StreamSpec, decode: DecodeStage) -> None:
    read = read_stage(spec)
    first, second = decode(read(block(5))), decode(read(block(5)))
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.parametrize("ranks", [1, 3, 4])
def test_every_world_size_sees_the_same_clips_in_each_step(generated: Path, ranks: int) -> None:
    recipe = tiny_recipe(generated)

    def clips_of_step_1(count: int) -> dict[int, tuple[bytes, bytes]]:
        seen = {}
        for rank in range(count):
            for rows in local_blocks(stream_spec(recipe, count, last_step=2), rank, 1):
                for row in np.flatnonzero(rows["weight"]):
                    seen[int(rows["slot"][row])] = (rows["frames"][row].tobytes(), rows["visible"][row].tobytes())
        return seen

    assert clips_of_step_1(ranks) == clips_of_step_1(2)


def test_padding_weighs_nothing_and_sees_as_much_as_any_clip(generated: Path) -> None:
    spec = stream_spec(tiny_recipe(generated), ranks=3, last_step=1)
    last = next(iter(local_blocks(spec, 2, 0)))
    assert last["slot"].tolist() == [12, 13, 14, 15, -1, -1]
    assert last["weight"].tolist() == [1, 1, 1, 1, 0, 0]
    assert len(set(last["visible"].sum(1))) == 1
    assert not last["frames"][4:].any()


def damaged(spec: StreamSpec, rows: Batch, place: int) -> Batch:
    """The same rows with a video that cannot be opened in one place."""
    data = rows["bytes"].copy()
    data[place] = b"no video"
    starts = rows["starts"].copy()
    starts[place] = pack_starts(((0, b"no video"),))
    return {**rows, "bytes": data, "starts": starts}


def test_a_bad_video_is_replaced_by_the_plans_spare_and_noted(spec: StreamSpec, decode: DecodeStage) -> None:
    good = read_stage(spec)(block(0))
    clips = decode(damaged(spec, good, 2))
    own, spare = decode._maker.choose(2), decode._maker.choose(2, 1)
    assert clips["video_id"][4:6].tolist() == [spare.video.video_id] * 2
    assert clips["attempt"].tolist() == [0] * 4 + [1, 1] + [0] * 2
    assert (clips["weight"] == 1).all()
    (note,) = unpack_notes(clips["notes"][4])
    assert (note.slot, note.video_id, note.attempt, note.code) == (2, own.video.video_id, 0, "open")
    untouched = decode(good)
    for name in ("frames", "visible"):
        assert (np.delete(clips[name], [4, 5], 0) == np.delete(untouched[name], [4, 5], 0)).all()


def test_when_no_spare_can_be_read_the_slot_is_skipped(spec: StreamSpec) -> None:
    everything = {video: ("decode", "bad") for video in range(16)}
    stage = decode_stage(replace(spec, known_bad=everything))
    rows = read_stage(replace(spec, known_bad=everything))(block(0))
    assert rows["attempt"].tolist() == [ATTEMPTS + 1] * 4
    clips = stage(rows)
    stage.close()
    assert (clips["weight"] == 0).all()
    assert clips["slot"].tolist() == [slot for slot in range(4) for _ in range(2)]
    assert len(unpack_notes(clips["notes"][0])) == ATTEMPTS + 1
    assert len(set(clips["visible"].sum(1))) == 1


def test_a_video_in_quarantine_is_not_even_fetched(spec: StreamSpec) -> None:
    own = decode_stage(spec)._maker.choose(1).video.video_id
    rows = read_stage(replace(spec, known_bad={own: ("decode", "bad")}))(block(0))
    assert rows["attempt"][1] >= 1
    (note,) = [note for note in unpack_notes(rows["notes"][1]) if note.attempt == 0]
    assert (note.video_id, note.reason) == (own, "bad")


def test_a_missing_object_is_replaced_too(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    spec = stream_spec(recipe, ranks=1)
    stage = decode_stage(spec)
    gone = stage._maker.choose(0).video
    storage.delete([gone.uri])
    clips = stage(read_stage(spec)(block(0)))
    stage.close()
    assert clips["weight"].all()
    assert clips["attempt"][0] >= 1
    assert unpack_notes(clips["notes"][0])[0].code == "storage"


def test_a_mask_stage_makes_what_decoding_would_have_made(spec: StreamSpec, decode: DecodeStage) -> None:
    clips = decode(read_stage(spec)(block(0)))
    assert decode._masker is not None
    stage = MaskStage(decode._maker, decode._masker)
    without = {name: values for name, values in clips.items() if name != "visible"}
    assert (stage(without)["visible"] == clips["visible"]).all()


def test_a_mask_stage_asks_for_the_flow_of_a_whole_block_at_once(spec: StreamSpec, decode: DecodeStage) -> None:
    asked: list[int] = []

    class Counted(DIS):
        def __call__(self, frames: Frames, pairs: Sequence[FramePair]) -> Tensor:
            asked.append(len(frames))
            return super().__call__(frames, pairs)

    clips = decode(read_stage(spec)(block(0)))
    for name in ("weight", "frames"):
        clips[name][2:4] = 0  # both views of a slot that was skipped
    stage = MaskStage(decode._maker, Masker(spec.recipe.record, spec.recipe.method, Counted("fast")))
    made = stage({name: values for name, values in clips.items() if name != "visible"})
    assert asked == [len(clips["slot"]) - 2]
    kept = clips["weight"] > 0
    assert (made["visible"][kept] == clips["visible"][kept]).all()
    assert made["visible"].sum(1).tolist() == [made["visible"][0].sum()] * len(clips["slot"])


def test_notes_and_segments_survive_their_way() -> None:
    notes = [Note(3, 7, 0, "short", 'it\'s "short"')]
    assert unpack_notes(pack_notes(notes)) == notes
    assert pack_notes([]) == ""
    segments = ((0, b"abc"), (100, b""), (200, b"xy"))
    assert unpack_segments(pack_starts(segments), b"abcxy") == segments


def test_a_clips_pixels_column_is_the_checksum_of_its_frames_and_extra_ones(generated: Path) -> None:
    for method in ("videomae", "motionmae"):
        clips = next(iter(local_blocks(stream_spec(tiny_recipe(generated, f"method.name={method}"), 1), 0, 0)))
        for row in range(4):
            data = clips["frames"][row].tobytes() + (clips["extra"][row].tobytes() if "extra" in clips else b"")
            assert clips["pixels"][row] == zlib.crc32(data)
        assert ("extra" in clips) == (method == "motionmae")


def test_a_video_that_was_passed_over_for_a_slot_does_not_stand_in_it_as_its_spare(
    spec: StreamSpec, decode: DecodeStage
) -> None:
    maker = decode._maker
    slot = next(slot for slot in range(500) if maker.plan.spare(slot, 1) == maker.plan.videos(slot, slot + 1)[0])
    number, place = divmod(slot, 4)
    clips = decode(damaged(spec, read_stage(spec)(block(number)), place))
    row = place * spec.layout.views
    notes = unpack_notes(clips["notes"][row])
    assert [note.attempt for note in notes] == list(range(clips["attempt"][row]))
    assert notes[1].reason == notes[0].reason
    assert clips["video_id"][row] not in {note.video_id for note in notes}
    assert clips["weight"][row] == 1
