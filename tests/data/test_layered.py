"""Stride-layered shards: every s-th frame is a reference, and the others need not be decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest

from system import storage
from system.data import decode
from system.data.assemble import StreamSpec, clip_maker
from system.data.augment import CropDraw
from system.data.clips import ClipMaker, key_frame_before
from system.data.containers import open_video
from system.data.dataset import ensure_index
from system.data.decode import ClipRequest, decode_pyav
from system.data.index import Index
from system.data.probe import probe_video
from system.data.shards import ShardOptions, make_shards, phase_of
from system.data.sources import build_index
from system.data.transcode import transcode
from system.data.vectors import VectorCollector
from system.errors import DataError
from tests.data.test_decode import closeness, encoded, images, row, whole
from tests.small import stream_spec, tiny_recipe

STRIDE = 4
REFERENCE, BETWEEN = {1, 2}, {3}  # I and P; B


@pytest.fixture(scope="module")
def source() -> bytes:
    """61 frames, key frames where the source has them, B-frames and more references."""
    return encoded(images(61, (96, 128)), options={"preset": "veryfast", "g": "23"})


@pytest.fixture(scope="module")
def layered(source: bytes) -> bytes:
    return transcode(io.BytesIO(source), short_side=96, key_every=16, crf=18, layers=STRIDE)


def kinds(data: bytes) -> list[int]:
    container, stream = open_video(io.BytesIO(data))
    with container:
        return [int(frame.pict_type) for frame in container.decode(stream)]


def clip(data: bytes, frames: tuple[int, ...], layers: int) -> ClipRequest:
    video = row(probe_video(whole(data)), data)
    return ClipRequest(
        frames, (CropDraw(0, 4), CropDraw(9, 12)), 64, seek=key_frame_before(video, frames[0]), layers=layers
    )


def test_only_every_fourth_frame_is_a_reference_and_the_one_before_a_key_frame(layered: bytes) -> None:
    found = kinds(layered)
    assert len(found) == 61
    for number, kind in enumerate(found):
        closes_a_group = number % 16 == 15
        assert kind in (REFERENCE if number % STRIDE == 0 or closes_a_group else BETWEEN), number
    assert [number for number, kind in enumerate(found) if kind == 1] == [0, 16, 32, 48]


def test_the_keys_of_the_source_are_forgotten(source: bytes, layered: bytes) -> None:
    assert probe_video(whole(source)).key_frames == [0, 23, 46]
    assert probe_video(whole(layered)).key_frames == [0, 16, 32, 48]


@pytest.mark.parametrize("first", [0, 4, 16, 20, 44])
def test_skipping_gives_the_same_pixels_for_the_same_numbers(layered: bytes, first: int) -> None:
    frames = tuple(range(first, 61, STRIDE))
    skipped = decode_pyav(io.BytesIO(layered), clip(layered, frames, STRIDE))
    assert (skipped == decode_pyav(io.BytesIO(layered), clip(layered, frames, 0))).all()


@pytest.mark.parametrize("fps", ["30000/1001", "24", "12.5"])
def test_numbers_are_right_at_every_rate(fps: str) -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in images(40, (48, 64)):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    data = transcode(io.BytesIO(target.getvalue()), short_side=48, key_every=16, crf=18, layers=STRIDE)
    frames = tuple(range(4, 40, STRIDE))
    request = clip(data, frames, STRIDE)
    assert (decode_pyav(io.BytesIO(data), request) == decode_pyav(io.BytesIO(data), replace(request, layers=0))).all()


@pytest.mark.parametrize("way", ["_picked", "_numbered"])
def test_skipping_decodes_the_references_alone(layered: bytes, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """By their packets, and where that does not go by telling the decoder: then with the one before a key frame."""
    seen: list[int] = []
    honest = getattr(decode, way)

    def counting(*values: object) -> Iterator[object]:
        for number, frame in honest(*values):
            seen.append(number)
            yield number, frame

    monkeypatch.setattr(decode, way, counting)
    if way == "_numbered":
        monkeypatch.setattr(decode, "_decode_sparsely", lambda *values: None)
    decode_pyav(io.BytesIO(layered), clip(layered, (20, 24, 28, 32, 36), STRIDE))
    assert seen == ([16, 20, 24, 28, 31, 32, 36] if way == "_numbered" else [16, 20, 24, 28, 32, 36])


@pytest.mark.parametrize("first", [0, 4, 20, 44])
def test_vectors_are_the_same_whichever_way_the_frames_are_found(
    layered: bytes, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    frames = tuple(range(first, 61, STRIDE))
    pairs = tuple((place + 1, place) for place in range(len(frames) - 1))
    request = replace(clip(layered, frames, STRIDE), pairs=pairs)
    found = []
    for _ in range(2):
        vectors = VectorCollector(request)
        pixels = decode_pyav(io.BytesIO(layered), request, vectors)
        found.append((pixels, vectors.flow()))
        monkeypatch.setattr(decode, "_decode_sparsely", lambda *values: None)
    (pixels, flow), (others, other_flow) = found
    assert flow is not None and other_flow is not None
    assert (pixels == others).all()
    assert (flow == other_flow).all()


def test_a_stream_that_is_not_layered_after_all_is_decoded_whole(source: bytes) -> None:
    frames = tuple(range(0, 60, STRIDE))
    wrong = clip(source, frames, STRIDE)
    assert (decode_pyav(io.BytesIO(source), wrong) == decode_pyav(io.BytesIO(source), replace(wrong, layers=0))).all()


def test_a_phase_drops_the_first_frames(source: bytes) -> None:
    made = images(61, (96, 128))
    data = transcode(io.BytesIO(source), short_side=96, key_every=16, crf=18, layers=STRIDE, phase=3)
    assert probe_video(whole(data)).num_frames == 58
    request = ClipRequest((0, 4, 8), (CropDraw(0, 4),), 96, layers=STRIDE)
    for found, number in zip(decode_pyav(io.BytesIO(data), request)[0], (3, 7, 11), strict=True):
        errors = [closeness(found, image[:, 16:112]) for image in made]
        assert errors[number] <= min(errors) + 0.5


@pytest.fixture
def index(generated: Path) -> Index:
    return Index(ensure_index(tiny_recipe(generated)))


@pytest.fixture(scope="module")
def shards(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The generated videos in layers of 4."""
    out = str(tmp_path_factory.mktemp("layered"))
    made = Index(ensure_index(tiny_recipe(generated)))
    make_shards(made, out, ShardOptions("layered", short_side=48, key_every=8, crf=18, layers=STRIDE))
    return out


def test_a_shard_knows_its_layers_and_drops_its_phase(index: Index, shards: str) -> None:
    packed = Index(f"{shards}/index.parquet")
    assert packed.num_videos == index.num_videos
    for before, after in zip(index, packed, strict=True):
        assert after.layers == STRIDE
        assert after.num_frames == before.num_frames - phase_of(before, STRIDE)
        assert after.label == before.label


def test_phases_differ_between_videos_and_are_drawn_again_alike(index: Index) -> None:
    videos = [replace(index.row(0), video_id=number) for number in range(64)]
    phases = [phase_of(video, STRIDE) for video in videos]
    assert set(phases) == set(range(STRIDE))
    assert phases == [phase_of(video, STRIDE) for video in videos]
    assert phase_of(replace(videos[phases.index(3)], num_frames=2), STRIDE) == 1
    assert {phase_of(video, 0) for video in index} == {0}


def layered_spec(generated: Path, shards: str, *overrides: str) -> StreamSpec:
    return stream_spec(tiny_recipe(generated, f"data.uri={shards}", *overrides), ranks=1)


def maker(spec: StreamSpec) -> ClipMaker:
    return clip_maker(spec.recipe, spec.index_uri)


@pytest.mark.parametrize(("stride", "skips"), [(4, True), (8, True), (2, False), (3, False)])
def test_clips_start_on_references_where_the_stride_is_one_of_the_layers(
    generated: Path, shards: str, stride: int, skips: bool
) -> None:
    made = maker(layered_spec(generated, shards, f"data.stride={stride}", "data.num_frames=2"))
    choices = [made.choose(slot) for slot in range(40)]
    assert len({choice.start for choice in choices}) > 1 or stride == 8
    for choice in choices:
        request = made.request(choice)
        assert (choice.start % STRIDE == 0) or not skips
        assert request.layers == (STRIDE if not any(frame % STRIDE for frame in request.frames) else 0)
        assert request.layers == STRIDE or not skips


def test_an_extra_frame_that_is_no_reference_is_decoded_with_all_others(generated: Path, shards: str) -> None:
    made = maker(layered_spec(generated, shards, "data.num_frames=2"))
    extra = replace(made, spec=replace(made.spec, extra=(1,)))
    assert {extra.request(extra.choose(slot)).layers for slot in range(8)} == {0}


def test_an_index_without_the_column_is_read_as_it_was(index: Index, tmp_path: Path) -> None:
    table = pq.read_table(index.uri)
    assert table["layers"].to_pylist() == [0] * 16
    facts = pq.ParquetFile(index.uri).metadata.metadata[b"tubelet"]
    old = table.drop_columns(["layers"]).replace_schema_metadata({b"tubelet": facts})
    pq.write_table(old, tmp_path / "old.parquet", row_group_size=2048)
    assert list(Index(str(tmp_path / "old.parquet"))) == list(index)


@pytest.mark.slow
def test_a_place_with_shards_from_before_there_were_layers_goes_on(index: Index, tmp_path: Path) -> None:
    options = ShardOptions("as-is")
    make_shards(index, str(tmp_path), options)
    uri = str(tmp_path / "shards.json")
    told = storage.read(uri).replace(b',\n "layers": 0', b"")
    assert b"layers" not in told
    storage.write(uri, told)
    make_shards(index, str(tmp_path), options)
    with pytest.raises(DataError, match="layers: there 0, now 4"):
        make_shards(index, str(tmp_path), ShardOptions("layered", key_every=16, layers=4))


def test_layers_that_cannot_be_are_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"key-every=30 is not a multiple of the stride 4; use 32"):
        make_shards(index, str(tmp_path), ShardOptions("layered", key_every=30, layers=4))
    for layers in (0, 1, 18):
        with pytest.raises(DataError, match=f"needs a stride of 2 to 17 frames, got {layers}"):
            make_shards(index, str(tmp_path), ShardOptions("layered", key_every=36, layers=layers))


@pytest.mark.slow
def test_a_shard_that_is_indexed_again_is_decoded_whole(shards: str, tmp_path: Path) -> None:
    again = Index(build_index(shards, str(tmp_path / "i.parquet")).uri)
    assert {video.layers for video in again} == {0}


@pytest.mark.slow
def test_real_files_are_layered(real_videos: Path) -> None:
    for name in ("realshort.mp4", "h265_video.mp4"):
        data = transcode(
            io.BytesIO((real_videos / name).read_bytes()), short_side=64, key_every=32, crf=30, layers=STRIDE
        )
        count = probe_video(whole(data)).num_frames
        request = clip(data, tuple(range(0, count, STRIDE)), STRIDE)
        skipped = decode_pyav(io.BytesIO(data), request)
        assert (skipped == decode_pyav(io.BytesIO(data), replace(request, layers=0))).all()
