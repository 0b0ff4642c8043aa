"""Only what a clip needs of an H.264 stream is decoded, and its pixels are those that decoding everything gives."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import av
import pytest

from system.data import decode, sparse
from system.data.augment import CropDraw
from system.data.clips import key_frame_before
from system.data.containers import open_from_header, open_video
from system.data.decode import ClipRequest, decode_pyav, gathered_packets
from system.data.probe import probe_video
from system.data.scale import Frames
from system.data.sparse import Gathered, IrregularError, closes, decoded, gather, needed
from system.errors import DecodeError
from tests.data.test_decode import encoded, images, row, whole

KINDS = {
    "no B-frames": {"bf": "0", "g": "12"},
    "B-frames": {"bf": "3", "g": "20", "x264-params": "b-adapt=0:b-pyramid=none"},
    "B-frames that are referred to": {"bf": "5", "g": "24", "x264-params": "b-adapt=0:b-pyramid=normal:ref=4"},
    "open groups": {"g": "10", "bf": "2", "x264-params": "open-gop=1:b-adapt=0"},
    "key frames where the scene changes": {"g": "250", "bf": "3"},
    "fields": {"g": "12", "x264-params": "interlaced=1"},
    "refreshed in columns": {"g": "16", "x264-params": "intra-refresh=1"},
}


@pytest.fixture(scope="module")
def made() -> list[Frames]:
    return images(72, (64, 80))


def clip(data: bytes, frames: tuple[int, ...]) -> ClipRequest:
    video = row(probe_video(whole(data)), data)
    seek = key_frame_before(video, frames[0])
    return ClipRequest(frames, (CropDraw(0, 4), CropDraw(9, 12)), 48, seek=seek)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_those_of_decoding_every_frame(made: list[Frames], kind: str, container: str) -> None:
    data = encoded(made, container=container, options={"preset": "veryfast", **KINDS[kind]})
    for first, stride in ((0, 4), (13, 4), (31, 5), (40, 1)):
        request = clip(data, tuple(min(first + stride * place, 71) for place in range(8)))
        every = decode._decode_from(io.BytesIO(data), replace(request, seek=None))
        assert (decode_pyav(io.BytesIO(data), request) == every).all(), first


def test_frames_that_nothing_refers_to_and_nobody_wants_are_not_decoded(made: list[Frames]) -> None:
    data = encoded(made, options={"preset": "veryfast", **KINDS["B-frames"]})
    container, stream = open_video(io.BytesIO(data))
    with container:
        gathered = gather(container.demux(stream), 0, 71)
        referred_to = shown(gathered, decoded(stream.codec_context, gathered.packets, ()))
    between = set(range(72)) - set(referred_to)
    wanted = (5, 7, 9, 11, 13)
    assert between & set(wanted)
    seen = set(numbers_decoded(data, clip(data, wanted)))
    assert set(wanted) < seen
    assert seen & between == between & set(wanted)


def test_the_end_of_a_closed_group_is_not_decoded_behind_its_last_wanted_frame(made: list[Frames]) -> None:
    data = encoded(made, options={"preset": "veryfast", **KINDS["no B-frames"]})
    assert numbers_decoded(data, clip(data, (10, 24, 26))) == [*range(11), 24, 25, 26]


def numbers_decoded(data: bytes, request: ClipRequest) -> list[int]:
    container, stream = open_video(io.BytesIO(data))
    with container:
        gathered, wanted = gathered_packets(container, stream, request)
        packets = needed(gathered, wanted, stream.codec_context.extradata)
        return shown(gathered, decoded(stream.codec_context, packets, wanted))


def shown(gathered: Gathered, frames: Iterable[av.VideoFrame]) -> list[int]:
    times = [frame.pts for frame in frames]
    return [gathered.numbers[time] for time in times if time is not None and time in gathered.numbers]


def test_packets_are_taken_no_further_than_to_the_last_frame(made: list[Frames]) -> None:
    data = encoded(made, options={"preset": "veryfast", **KINDS["B-frames"]})
    container, stream = open_video(io.BytesIO(data))
    with container:
        gathered = gather(container.demux(stream), 0, 20)
    assert list(gathered.times) == list(range(21))
    assert len(gathered.packets) < 30


def test_an_open_group_is_not_taken_for_a_closed_one(made: list[Frames]) -> None:
    for kind, closed in (("open groups", False), ("no B-frames", True)):
        data = encoded(made, options={"preset": "veryfast", **KINDS[kind]})
        container, stream = open_video(io.BytesIO(data))
        with container:
            keys = [packet for packet in container.demux(stream) if packet.is_keyframe]
            extradata = stream.codec_context.extradata
            assert [closes(memoryview(key), extradata) for key in keys[1:]] == [closed] * (len(keys) - 1)


def test_what_cannot_be_read_closes_no_group() -> None:
    assert not closes(memoryview(b""), b"\1\0\0\0\3")
    assert not closes(memoryview(b"\0\0\0\5\6\0\0\0\0"), b"\1\0\0\0\3")  # no picture in it
    assert not closes(memoryview(b"\0\0\0\2\x65\0"), None)
    assert closes(memoryview(b"\0\0\0\2\x65\0"), b"\1\0\0\0\3")
    assert closes(memoryview(b"\0\0\0\2\6\0\0\0\0\2\x65\0"), b"\1\0\0\0\3")


def test_packets_without_times_are_refused(made: list[Frames]) -> None:
    data = encoded(made[:8])
    container, stream = open_video(io.BytesIO(data))
    with container:
        packets = list(container.demux(stream))
    packets[3].pts = None
    with pytest.raises(IrregularError, match="no times"):
        gather(packets, 0, 7)
    packets[3].pts = packets[2].pts
    with pytest.raises(IrregularError):
        gather(packets, 0, 7)


def test_a_stretch_that_is_too_long_to_be_held_is_decoded_frame_by_frame(
    made: list[Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(made[:20], options={"preset": "veryfast"})
    request = ClipRequest((0, 9), (CropDraw(0, 4),), 48)
    every = decode_pyav(io.BytesIO(data), request)
    monkeypatch.setattr(sparse, "MOST_BYTES", 100)
    with pytest.raises(IrregularError, match="behind a key frame"):
        decode._decode_sparsely(io.BytesIO(data), request)
    assert (decode_pyav(io.BytesIO(data), request) == every).all()


def test_a_key_frame_that_gives_damaged_frames_is_not_decoded_from(real_videos: Path) -> None:
    """This one was cut out of a longer video: two of its three key frames need frames before them."""
    data = (real_videos / "cockatoo.mp4").read_bytes()
    request = clip(data, (80,))
    assert request.seek is not None and request.seek.frame == 76
    with pytest.raises(DecodeError, match="frame 80 is damaged"):
        decode._decode_sparsely(io.BytesIO(data), request)
    every = decode._decode_from(io.BytesIO(data), replace(request, seek=None))
    assert (decode_pyav(io.BytesIO(data), request) == every).all()


def test_other_codecs_and_containers_are_decoded_whole(made: list[Frames]) -> None:
    for codec, container in (("mpeg4", "mp4"), ("libx264", "matroska"), ("libx264", "mpegts")):
        data = encoded(made[:20], codec=codec, container=container, options={"g": "10"})
        request = ClipRequest((0, 4, 8), (CropDraw(0, 4),), 48)
        assert decode._decode_sparsely(io.BytesIO(data), request) is None
        assert (decode_pyav(io.BytesIO(data), request) == decode._decode_from(io.BytesIO(data), request)).all()


def test_a_header_tells_as_much_as_the_first_frames(made: list[Frames]) -> None:
    data = encoded(made[:20], options={"preset": "veryfast"})
    opened = open_from_header(io.BytesIO(data))
    assert opened is not None
    quick, (container, stream) = opened[1], open_video(io.BytesIO(data))
    assert (quick.width, quick.height, quick.frames) == (stream.width, stream.height, stream.frames)
    assert quick.codec_context.extradata == stream.codec_context.extradata
    container.close()


def test_of_several_video_streams_the_one_is_taken_that_was_indexed(made: list[Frames]) -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as out:
        streams = [out.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, (width, height) in zip(streams, ((32, 32), (80, 64)), strict=True):
            stream.width, stream.height = width, height
        for image in made[:20]:
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(stream.width, stream.height)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode())
    data = target.getvalue()
    container, chosen = open_video(io.BytesIO(data))
    for size_px in (None, (chosen.width, chosen.height), (1, 1)):
        opened = open_from_header(io.BytesIO(data), size_px)
        assert opened is not None
        assert opened[1].index == chosen.index
    container.close()


def test_real_files_have_the_same_pixels(real_videos: Path) -> None:
    for name in ("bikes.mp4", "nasa_13013.mp4", "realshort.mp4"):
        data = (real_videos / name).read_bytes()
        last = probe_video(whole(data)).num_frames - 1
        frames = tuple(min(last // 3 + 4 * place, last) for place in range(16))
        request = replace(clip(data, frames), size=224)
        picked = decode._decode_sparsely(io.BytesIO(data), request)
        assert picked is not None, name
        assert (picked == decode._decode_from(io.BytesIO(data), request)).all(), name
