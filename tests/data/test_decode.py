from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from system.data.augment import CropDraw
from system.data.clips import key_frame_before
from system.data.decode import ClipRequest, decode_pyav
from system.data.decoders import DECODERS, decode_clip, has_decoder
from system.data.index import VideoRow
from system.data.probe import VideoFacts, probe_video
from system.data.scale import Frames
from system.data.supplied import SuppliedFile
from system.data.synthetic import moving_scene
from system.errors import DecodeError, RecipeError

CENTRE = CropDraw(0, 4)
NEEDS_DECORD = pytest.mark.skipif(not has_decoder("decord"), reason="decord has no wheel for this platform")


def nothing_more(start: int, stop: int) -> bytes:
    raise AssertionError(f"bytes {start} to {stop} were asked for")


def whole(data: bytes) -> SuppliedFile:
    return SuppliedFile(len(data), [(0, data)], nothing_more)


def encoded(
    images: list[Frames],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container: str = "mp4",
    full_range: bool = False,
    options: dict[str, str] | None = None,
) -> bytes:
    """Write images as a video of the wanted kind."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=Fraction(25))
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.options = options or {"crf": "4", "preset": "ultrafast"}
        if full_range:
            stream.codec_context.color_range = 2
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if full_range:
                frame = frame.reformat(format=pix_fmt, dst_color_range=2)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return target.getvalue()


def images(count: int = 24, size: tuple[int, int] = (96, 128)) -> list[Frames]:
    scene = moving_scene(0, 1, size=size, num_frames=count)
    return [scene.frame(index) for index in range(count)]


def request(*frames: int, size: int = 96, decoder: str = "pyav") -> ClipRequest:
    return ClipRequest(frames, (CENTRE,), size, decoder)


def centre(image: Frames) -> Frames:
    return image[:, 16:112]  # of 128 px


def closeness(found: Frames, wanted: Frames) -> float:
    return float(np.abs(found.astype(float) - wanted.astype(float)).mean())


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "container", "options"),
    [
        ("libx264", "yuv420p", "mp4", None),
        ("libx264", "yuv444p", "matroska", None),
        ("libx264", "yuv420p10le", "mp4", None),
        ("libx265", "yuv420p", "mp4", {"crf": "4", "x265-params": "log-level=none"}),
        ("libvpx-vp9", "yuv420p", "webm", {"crf": "4", "b": "0", "cpu-used": "8", "deadline": "realtime"}),
        ("libsvtav1", "yuv420p", "matroska", {"crf": "8", "preset": "12"}),
        ("mpeg4", "yuv420p", "avi", {"q": "1"}),
        ("mjpeg", "yuvj420p", "avi", {"q": "1"}),
        ("libx264", "yuv420p", "flv", None),
        ("mpeg2video", "yuv420p", "mpegts", {"q": "1"}),
    ],
)
def test_frames_come_back_by_their_numbers(
    codec: str, pix_fmt: str, container: str, options: dict[str, str] | None
) -> None:
    made = images()
    frames, name = decode_clip(
        io.BytesIO(encoded(made, codec=codec, pix_fmt=pix_fmt, container=container, options=options)),
        request(0, 5, 11, 23),
    )
    assert name == "pyav"
    assert frames.shape == (1, 4, 96, 96, 3)
    for found, number in zip(frames[0], (0, 5, 11, 23), strict=True):
        errors = [closeness(found, centre(image)) for image in made]
        assert errors[number] < 8
        assert errors[number] <= min(errors) + 0.5


def test_full_range_is_not_taken_for_limited_range() -> None:
    ramp = np.tile(np.linspace(0, 255, 128, dtype=np.uint8)[None, :, None], (96, 1, 3))
    data = encoded([ramp] * 4, full_range=True)
    found = decode_pyav(io.BytesIO(data), request(0))[0, 0]
    assert closeness(found, centre(ramp)) < 2  # taken for limited range it would be 10 off


def test_frames_are_repeated_where_the_request_repeats_them() -> None:
    frames = decode_pyav(io.BytesIO(encoded(images(10))), request(0, 4, 8, 8, 8))[0]
    assert (frames[2] == frames[3]).all()
    assert (frames[2] == frames[4]).all()


def test_views_are_cut_from_the_same_frames() -> None:
    data = encoded(images())
    crops = (CENTRE, CropDraw(6, 0), CropDraw(9, 12))
    both = decode_pyav(io.BytesIO(data), ClipRequest((0, 7), crops, 64))
    for view, crop in enumerate(crops):
        assert (both[view] == decode_pyav(io.BytesIO(data), ClipRequest((0, 7), (crop,), 64))[0]).all()


def row(facts: VideoFacts, data: bytes) -> VideoRow:
    return VideoRow(0, "", "", 0, len(data), "", None, duration_s=0.0, **facts.as_dict())


@pytest.mark.parametrize(
    "options", [{"bf": "0", "g": "8"}, {"bf": "3", "g": "12"}, {"g": "10", "x264-params": "open-gop=1"}]
)
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_seeking_finds_the_frames_that_decoding_from_the_start_finds(options: dict[str, str], container: str) -> None:
    data = encoded(images(60, (48, 64)), container=container, options={"preset": "veryfast", **options})
    facts = probe_video(whole(data))
    assert facts.num_frames == 60
    assert len(facts.key_frames) > 2
    for start in (0, 9, 13, 31, 47, 59):
        plain = ClipRequest((start,), (CENTRE,), 48)
        sought = ClipRequest((start,), (CENTRE,), 48, seek=key_frame_before(row(facts, data), start))
        assert (decode_pyav(io.BytesIO(data), plain) == decode_pyav(io.BytesIO(data), sought)).all()


def test_a_rotated_video_is_upright() -> None:
    made = images(4)
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as out:
        stream: Any = out.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt, stream.options = 128, 96, "yuv420p", {"crf": "4"}
        stream.set_display_rotation(90)
        for image in made:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    found = decode_pyav(io.BytesIO(target.getvalue()), request(0))[0, 0]
    turned = [closeness(found, np.rot90(centre(made[0]), turns)) for turns in range(4)]
    assert int(np.argmin(turned)) in (1, 3)
    assert min(turned) < 6


def test_a_video_that_ends_early_is_told_with_its_last_frame() -> None:
    with pytest.raises(DecodeError, match="frame 40 is wanted and the video ends after frame 9") as caught:
        decode_pyav(io.BytesIO(encoded(images(10))), request(0, 40))
    assert caught.value.code == "short"


def test_a_video_cut_in_half_gives_its_first_half_and_refuses_the_rest() -> None:
    data = encoded(images(60, (48, 64)), container="matroska", options={"g": "8", "preset": "veryfast"})
    cut = data[: len(data) // 2]
    assert decode_pyav(io.BytesIO(cut), request(0, 3, size=48)).shape == (1, 2, 48, 48, 3)
    with pytest.raises(DecodeError):
        decode_pyav(io.BytesIO(cut), request(0, 59, size=48))


@pytest.mark.parametrize("data", [b"", b"not a video at all", b"\0" * 5000], ids=["empty", "text", "zeros"])
def test_what_is_no_container_is_told(data: bytes) -> None:
    with pytest.raises(DecodeError, match="no container that is read here") as caught:
        decode_clip(io.BytesIO(data), request(0, decoder="auto"))
    assert caught.value.code == "open"


def test_a_file_without_video_is_told() -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as out:
        stream: Any = out.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(DecodeError, match="holds no video stream"):
        decode_pyav(io.BytesIO(target.getvalue()), request(0))


@pytest.mark.parametrize("decoder", ["pyav", "decord", "auto"])
def test_a_list_of_other_files_named_mp4_opens_none_of_them(decoder: str, tmp_path: Path) -> None:
    """FFmpeg's concat and playlist formats read other files of the host; without the list of formats this one works."""
    (tmp_path / "secret.mp4").write_bytes(encoded(images(4)))
    concat = f"ffconcat version 1.0\nfile '{tmp_path}/secret.mp4'\n".encode()
    with av.open(io.BytesIO(concat), mode="r", format="concat", options={"safe": "0"}) as opened:
        assert len(list(opened.decode(video=0))) == 4
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n".encode()
    for text in (concat, playlist):
        with pytest.raises(DecodeError, match="no container that "):
            decode_clip(io.BytesIO(text), request(0, decoder=decoder))


@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_a_playlist_that_is_a_transport_stream_too_reaches_no_decoder_that_would_open_what_it_lists(
    decoder: str, tmp_path: Path
) -> None:
    """PyAV is told not to know playlists and finds MPEG-TS packets; the others cannot be told."""
    (tmp_path / "secret.mp4").write_bytes(encoded(images(4)))
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n#".encode()
    both = text + encoded(images(), codec="mpeg2video", container="mpegts", options={"q": "1"})
    assert decode_clip(io.BytesIO(both), request(0))[0].shape == (1, 1, 96, 96, 3)
    with pytest.raises(DecodeError, match="no container that decord and torchcodec may open") as caught:
        DECODERS[decoder](io.BytesIO(both), request(0))
    assert caught.value.code == "open"


def damaged() -> bytes:
    data = bytearray(encoded(images(48), options={"crf": "10", "preset": "ultrafast", "g": "12"}))
    middle = len(data) // 2
    data[middle : middle + 400] = np.random.default_rng(1).bytes(400)
    return bytes(data)


def test_auto_does_not_pass_a_damaged_video_to_a_decoder_that_hides_the_damage() -> None:
    with pytest.raises(DecodeError, match="frame 24 is damaged") as caught:
        decode_clip(io.BytesIO(damaged()), request(0, 24, 40, decoder="auto"))
    assert caught.value.code == "corrupt"


@NEEDS_DECORD
def test_auto_asks_decord_about_a_codec_that_pyav_does_not_know() -> None:
    unknown = encoded(images()).replace(b"avc1" + bytes(6), b"zzzz" + bytes(6))
    with pytest.raises(DecodeError, match="its codec is not known to PyAV; decord: ") as caught:
        decode_clip(io.BytesIO(unknown), request(0, decoder="auto"))
    assert caught.value.code == "open"


@NEEDS_DECORD
@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libx264", "matroska"), ("mpeg4", "avi")])
def test_decord_opens_what_cannot_be_a_text(codec: str, container: str) -> None:
    data = encoded(images(), codec=codec, container=container, options={"q": "1"})
    assert decode_clip(io.BytesIO(data), request(0, 9, decoder="decord"))[1] == "decord"


@NEEDS_DECORD
def test_decord_decodes_nearly_the_same_pixels() -> None:
    data = encoded(images())
    ours = decode_pyav(io.BytesIO(data), request(0, 12))
    frames, name = decode_clip(io.BytesIO(data), request(0, 12, decoder="decord"))
    assert name == "decord"
    assert closeness(frames, ours) < 2


def test_a_decoder_that_is_not_installed_is_no_verdict_about_a_video() -> None:
    if has_decoder("torchcodec"):
        assert decode_clip(io.BytesIO(encoded(images())), request(0, decoder="torchcodec"))[1] == "torchcodec"
    else:
        with pytest.raises(RecipeError, match=r"data.decoder=torchcodec cannot be loaded .*set data.decoder=auto"):
            decode_clip(io.BytesIO(encoded(images())), request(0, decoder="torchcodec"))


def test_real_files_decode(real_videos: Path) -> None:
    for path in sorted(real_videos.glob("*.m*")):
        data = path.read_bytes()
        last = probe_video(whole(data)).num_frames - 1
        frames, name = decode_clip(io.BytesIO(data), request(0, last // 2, last, size=64))
        assert name == "pyav", path.name
        assert frames.std() > 1, path.name
