"""Flow from a stream's motion vectors, against the known motion of generated videos."""

from __future__ import annotations

import io
from functools import cache
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from system.config import MotionSection
from system.core.gaps import RECORD
from system.core.vectors import FLOW_STEPS
from system.data.augment import CropDraw
from system.data.decode import ClipRequest, decode_pyav
from system.data.probe import probe_video
from system.data.vectors import VectorCollector
from system.motion.base import check_motion, decoded_flow, flow_on_cells, motion_source
from tests.data.test_decode import whole
from tests.motion import codec_scenes as scenes

LAYOUTS = {"layered": scenes.STRIDE, "short-gop": 0, "default": 0}
# Errors of single gaps, px of the clip; docs/motion.md states what they are.
MEDIAN_PX = 0.25
# Where every frame has vectors of its own, four of them add up: the whole frame's motion by 4 px a frame is worst.
SHORT_GOP_PAN_PX = 0.35
SLOW = pytest.mark.slow
MOTIONS = ["left", "right", "up", "down", "pan", "cross"]
SPEEDS = [1.0, 2.0, 3.0, 4.0]


def median_errors(label: str, speed: float, layout: str) -> list[float]:
    made, data = scenes.scene(label, speed), scenes.packed(label, speed, layout)
    return [
        float(np.median(scenes.errors(scenes.found(data, pairs, layers=LAYOUTS[layout]), scenes.truth(made, pairs))))
        for pairs in (scenes.FORWARD, scenes.BACKWARD)
    ]


def mask_agreement(label: str, speed: float, layout: str) -> float:
    made, data = scenes.scene(label, speed), scenes.packed(label, speed, layout)
    flow = scenes.found(data, scenes.OUTWARD, layers=LAYOUTS[layout])
    return scenes.agreement(flow, scenes.truth(made, scenes.OUTWARD))


@pytest.mark.parametrize("layout", ["layered", *(pytest.param(name, marks=SLOW) for name in ("short-gop", "default"))])
def test_flow_is_the_motion_in_both_directions_of_time(layout: str) -> None:
    assert max(median_errors("left", 2.0, layout)) <= MEDIAN_PX
    assert mask_agreement("left", 2.0, layout) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("label", MOTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_median_error_of_a_gap_is_below_what_the_docs_state(layout: str, label: str, speed: float) -> None:
    limit = SHORT_GOP_PAN_PX if (layout, label) == ("short-gop", "pan") else MEDIAN_PX
    assert max(median_errors(label, speed, layout)) <= limit


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "stated"), [("layered", 0.92), ("short-gop", 0.92), ("default", 0.89)])
def test_masks_agree_with_those_of_the_true_flow_as_the_docs_state(layout: str, stated: float) -> None:
    found = [mask_agreement(label, speed, layout) for label in MOTIONS for speed in SPEEDS]
    assert np.mean(found) >= stated


@pytest.mark.slow
def test_masks_carried_on_cells_agree_with_those_of_the_true_flow_as_the_docs_state() -> None:
    found = []
    for label, speed in product(MOTIONS, SPEEDS):
        flow = scenes.decoded(scenes.packed(label, speed, "layered"), scenes.OUTWARD, layers=scenes.STRIDE)
        assert flow is not None
        true = scenes.truth(scenes.scene(label, speed), scenes.OUTWARD)
        found.append(scenes.agreement(flow_on_cells(flow)[0], true))
    assert np.mean(found) >= 0.92


def test_the_vectors_of_a_layered_stream_are_the_flow_without_decoding_what_lies_between() -> None:
    data = scenes.packed("left", 2.0, "layered")
    skipping = scenes.decoded(data, scenes.OUTWARD, layers=scenes.STRIDE)
    whole = scenes.decoded(data, scenes.OUTWARD)
    assert skipping is not None
    assert whole is not None
    assert (skipping == whole).all()


@pytest.mark.slow
def test_every_view_has_the_flow_of_its_own_crop() -> None:
    made, data = scenes.scene("left", 2.0), scenes.packed("left", 2.0, "layered")
    crops = (scenes.CENTRE, CropDraw(9, 12), CropDraw(4, 0))
    flow = scenes.decoded(data, scenes.BACKWARD, crops, scenes.STRIDE)
    assert flow is not None
    assert flow.shape == (3, 15, 56, 56, 2)
    for view, crop in enumerate(crops):
        true = scenes.truth(made, scenes.BACKWARD, crop)
        assert np.median(scenes.errors(decoded_flow(flow, scenes.SIZE)[view], true)) <= MEDIAN_PX


@pytest.mark.parametrize("rotation", [90, *(pytest.param(turn, marks=SLOW) for turn in (180, -90))])
def test_a_turned_video_has_turned_vectors(rotation: int) -> None:
    plain = scenes.rewritten(scenes.source("left", 2.0), "libx264", {"bf": "0", "refs": "1"})
    turned = scenes.rewritten(scenes.source("left", 2.0), "libx264", {"bf": "0", "refs": "1"}, rotation=rotation)
    request = ClipRequest(scenes.NUMBERS, (scenes.CENTRE,), scenes.SIZE)
    upright = decode_pyav(io.BytesIO(plain), request)
    shown = decode_pyav(io.BytesIO(turned), request)
    turns = [int((np.rot90(upright, k, (2, 3)) == shown).all()) for k in range(4)].index(1)
    one, other = scenes.found(plain, scenes.OUTWARD), scenes.found(turned, scenes.OUTWARD)
    for _ in range(turns):
        one = torch.rot90(one, 1, (1, 2))
        one = torch.stack([one[..., 1], -one[..., 0]], -1)
    assert torch.allclose(one, other, atol=0.02)


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libx265", "mp4", {"x265-params": "log-level=none", "preset": "ultrafast"}),
        ("libvpx-vp9", "webm", {"b": "0", "crf": "30", "cpu-used": "8", "deadline": "realtime"}),
        ("libsvtav1", "matroska", {"crf": "40", "preset": "12"}),
        ("mjpeg", "avi", {"q": "3"}),
        ("libx264", "mp4", {"g": "1", "preset": "ultrafast"}),
        ("libx264", "mp4", {"x264-params": "tff=1", "flags": "+ilme+ildct", "preset": "ultrafast"}),
    ],
    ids=["hevc", "vp9", "av1", "mjpeg", "intra only", "interlaced"],
)
def test_a_stream_without_usable_vectors_has_no_flow(codec: str, container: str, options: dict[str, str]) -> None:
    assert scenes.decoded(scenes.rewritten(small(), codec, options, container), scenes.OUTWARD) is None


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "container"), [("mpeg4", "avi"), ("mpeg2video", "mpegts"), ("libx264", "flv")])
def test_vectors_of_other_codecs_mean_the_same(codec: str, container: str) -> None:
    made = scenes.scene("left", 2.0)
    data = scenes.rewritten(scenes.source("left", 2.0), codec, {"q": "3", "g": "12", "bf": "2"}, container)
    error = np.median(scenes.errors(scenes.found(data, scenes.BACKWARD), scenes.truth(made, scenes.BACKWARD)))
    assert error <= 2 * MEDIAN_PX


@cache
def small() -> bytes:
    """The first scene, cut down: what is in it does not matter."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for number in range(scenes.LENGTH):
            image = scenes.scene("left", 2.0).frame(number)[:128, :160]
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        out.mux(stream.encode())
    return target.getvalue()


def test_records_are_read_as_the_decoder_writes_them() -> None:
    with av.open(io.BytesIO(small()), "r") as container:
        container.streams.video[0].codec_context.options = {"flags2": "+export_mvs"}
        frames = [frame for frame in container.decode(video=0) if frame.side_data.get("MOTION_VECTORS")]
        for frame in frames[:8]:
            vectors = frame.side_data["MOTION_VECTORS"]
            theirs, ours = vectors.to_ndarray(), np.frombuffer(memoryview(vectors), RECORD)
            assert all((theirs[name] == ours[name]).all() for name in RECORD.names or ())
    assert len(frames) > 40


def test_frames_are_the_same_with_and_without_vectors() -> None:
    request = ClipRequest(scenes.NUMBERS, (scenes.CENTRE, CropDraw(6, 3)), 96)
    with_pairs = ClipRequest(scenes.NUMBERS, request.crops, 96, pairs=tuple(scenes.OUTWARD))
    data = scenes.packed("left", 2.0, "default")
    frames = decode_pyav(io.BytesIO(data), with_pairs, VectorCollector(with_pairs))
    assert (frames == decode_pyav(io.BytesIO(data), request)).all()


def test_cells_become_px_without_moving() -> None:
    cells = np.stack(np.meshgrid(np.arange(56), np.arange(56)), -1).astype(np.int16)[None, None] * FLOW_STEPS
    pixels = decoded_flow(cells, 224)[0, 0]
    middle = (np.arange(224) + 0.5) / 4 - 0.5
    assert np.allclose(pixels[100, 2:-2, 0].numpy(), middle[2:-2], atol=1e-3)
    assert np.allclose(pixels[2:-2, 100, 1].numpy(), middle[2:-2], atol=1e-3)


def test_the_fallback_is_the_source_that_the_recipe_names() -> None:
    for name in ("dis", "frame_difference"):
        source = motion_source(MotionSection.model_validate({"source": "codec", "fallback": name}))
        assert type(source) is type(motion_source(MotionSection.model_validate({"source": name})))


def test_a_decoder_that_exports_no_vectors_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data.decoder=pyav exports, got data.decoder=decord"):
        check_motion(MotionSection(source="codec"), 224, "decord")


@pytest.mark.slow
def test_real_files_have_flow_or_none_by_their_codec(real_videos: Path) -> None:
    for path in sorted(real_videos.glob("*.m*")):
        data = path.read_bytes()
        facts = probe_video(whole(data))
        frames = tuple(min(number, facts.num_frames - 1) for number in scenes.NUMBERS)
        request = ClipRequest(frames, (scenes.CENTRE,), scenes.SIZE, pairs=tuple(scenes.OUTWARD))
        collector = VectorCollector(request)
        decode_pyav(io.BytesIO(data), request, collector)
        flow = collector.flow()
        assert (flow is not None) == (facts.codec == "h264"), path.name
        assert flow is None or np.isfinite(flow).all()
