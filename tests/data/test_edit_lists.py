"""Videos that were cut without re-encoding: they begin at a key frame, and an edit list hides what lies before the cut.

`ffmpeg -ss 0.8 -i in.mp4 -c copy out.mp4` writes the same: times that begin below zero, which the muxer hides.
"""

from __future__ import annotations

import io
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
import pytest

from system.data import supplied
from system.data.clips import key_frame_before
from system.data.containers import open_video
from system.data.decode import ClipRequest, decode_pyav
from system.data.probe import probe_video
from system.data.supplied import SuppliedFile
from tests.data.test_decode import CENTRE, encoded, images, row, whole

KINDS = {
    "no B-frames": {"bf": "0", "g": "12"},
    "B-frames": {"bf": "3", "g": "12"},
    "open groups": {"g": "10", "x264-params": "open-gop=1"},
}


@cache
def source(kind: str) -> bytes:
    return encoded(images(90, (48, 64)), options={"preset": "veryfast", **KINDS[kind]})


def cut(data: bytes, start: int, stop: int) -> bytes:
    """Copy the packets from the key frame before `start` on; frame `start` has time zero."""
    target = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as container, av.open(target, "w", format="mp4") as out:
        stream: Any = container.streams.video[0]
        copied = out.add_stream_from_template(stream)
        zero, end = (int(Fraction(number, 25) / stream.time_base) for number in (start, stop))
        container.seek(zero, stream=stream, backward=True)
        packet: Any
        for packet in container.demux(stream):
            if packet.size and packet.dts < end:
                packet.pts, packet.dts, packet.stream = packet.pts - zero, packet.dts - zero, copied
                out.mux(packet)
    return target.getvalue()


def ended(data: bytes, frames: int) -> bytes:
    """Let the edit list end after some frames, whatever follows."""
    at = data.index(b"elst") + 12  # of its first and only entry: version, flags and the count lie before
    return data[:at] + (frames * 1000 // 25).to_bytes(4, "big") + data[at + 4 :]  # in a movie's 1/1000 s


def shown(data: bytes) -> int:
    container, stream = open_video(io.BytesIO(data))
    with container:
        return sum(1 for _ in container.decode(stream))


def bytes_of_a_probe(data: bytes) -> int:
    """Count the bytes that a probe asks for, in pieces of 4 KiB so that they tell."""
    asked: list[int] = []

    def fetch(start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return data[start:stop]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supplied, "PIECE_BYTES", 1 << 12)
        probe_video(SuppliedFile(len(data), [], fetch))
    return sum(asked)


CUTS = {
    "in the middle": lambda kind: cut(source(kind), 20, 90),
    "of the middle": lambda kind: cut(source(kind), 33, 70),
    "near the end": lambda kind: cut(source(kind), 85, 90),
    "ended by the list": lambda kind: ended(cut(source(kind), 20, 90), 45),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", CUTS)
def test_a_cut_video_has_the_frames_that_are_shown(kind: str, where: str) -> None:
    data = CUTS[where](kind)
    facts = probe_video(whole(data))
    assert facts.num_frames == shown(data)
    assert facts.key_frames[0] == 0
    assert len(set(facts.key_frames)) == len(facts.key_frames)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", CUTS)
def test_a_frame_of_a_cut_video_is_the_same_with_and_without_seeking(kind: str, where: str) -> None:
    data = CUTS[where](kind)
    container, stream = open_video(io.BytesIO(data))
    with container:
        rgb = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    facts = probe_video(whole(data))
    for number in range(0, facts.num_frames, 3):
        plain = ClipRequest((number,), (CENTRE,), 48)
        sought = ClipRequest((number,), (CENTRE,), 48, seek=key_frame_before(row(facts, data), number))
        from_start = decode_pyav(io.BytesIO(data), plain)
        assert (decode_pyav(io.BytesIO(data), sought) == from_start).all(), number
        # The centre of 64 x 48 px is 48 x 48, not scaled; only rounding of colours differs.
        assert np.abs(from_start[0, 0].astype(int) - rgb[number][:, 8:56]).mean() < 2, number


def test_the_first_shown_frame_is_the_one_of_the_cut() -> None:
    made = images(90, (48, 64))
    found = decode_pyav(io.BytesIO(cut(source("B-frames"), 20, 90)), ClipRequest((0,), (CENTRE,), 48))[0, 0]
    errors = [np.abs(found.astype(int) - image[:, 8:56]).mean() for image in made]
    assert int(np.argmin(errors)) == 20


def test_the_header_is_enough_to_count_a_cut_videos_frames() -> None:
    noise = np.random.default_rng(0)
    made = [noise.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(90)]
    data = cut(encoded(made, options={"g": "12", "preset": "ultrafast"}), 20, 90)
    assert bytes_of_a_probe(data) < len(data) // 2
