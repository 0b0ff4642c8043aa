"""What decoding does: bytes of a video in, crops of 16 frames out, on one core.

Ours is what a decode child does and what is fetched for it (`data.reading.fetch`, `data.decoders.decode_clip`); lines
without a target go through the child itself. The limit is the codec alone on the same frames: the files are fetched,
opened and read, and the packets decoded that these frames need; nothing is cut, scaled or converted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from system.benchmark.clip_sources import SIZE, Clips, Sources, clips_of, file_of, segments_of, sources
from system.benchmark.conventional_decode import conventional_clips, missing_packages
from system.benchmark.line import Line, Target, rate_line
from system.benchmark.stages import Asked
from system.benchmark.timing import Measured, interleaved, one_core
from system.benchmark.torch_work import threads
from system.data.clips import Choice, ClipMaker
from system.data.containers import open_from_header
from system.data.decode import gathered_packets
from system.data.decoders import decode_clip
from system.data.sandbox import Limits, Sandbox
from system.data.scale import Frames
from system.data.sparse import decoded, needed
from system.errors import DataError, DecodeError

# Views of one decoded video: as without repeated augmentation, and with MGMAE's.
VIEWS = (1, 4)
# Turns that each repeat is cut into: what else a machine does comes and goes within seconds.
TURNS = 3
CONVENTIONAL = "decord get_batch, Pillow crop and resize, normalised float tensor"
LIMIT = "the codec alone on the same frames, with opening and reading the file"


def measure(asked: Asked) -> Sequence[Line]:
    """Measure the decoding of small originals, and of large ones in layers of the stride."""
    lines = lines_of(asked, sources(asked))
    if not lines:
        raise DataError(f"{asked.videos} holds no H.264 video that decoding could be measured on")
    return lines


def lines_of(asked: Asked, found: Sources) -> list[Line]:
    """Measure what there are videos for."""
    missing = missing_packages()
    if missing:
        asked.say(f"  no conventional decoding: {' and '.join(missing)} not installed")
    with one_core(), threads(1):
        return _originals(asked, found, not missing) + _layered(asked, found, not missing)


def _originals(asked: Asked, found: Sources, has_peer: bool) -> list[Line]:
    if found.small is None:
        asked.say("  no small videos here, so the lines of original files are left out")
        return []
    lines = []
    for views, ratio in zip(VIEWS, (2.5, 4.0), strict=True):
        clips = clips_of(found.small, views, 1 if asked.short else 4)
        contenders = _contenders(clips)
        if has_peer:
            contenders["conventional"] = partial(conventional, clips)
        rates = _rates(asked, clips, contenders)
        name = f"original files, {views} view{'s' if views > 1 else ''}"
        lines += _lines(name, rates, (Target("ratio", ratio),), f"{CONVENTIONAL}; {_about(clips, rates)}")
    return lines


def _layered(asked: Asked, found: Sources, has_peer: bool) -> list[Line]:
    if found.large is None or found.layered is None:
        asked.say("  no video of 720 lines here, so the lines of layered shards are left out")
        return []
    clips = clips_of(found.layered, 1, 1 if asked.short else 8)
    contenders = _contenders(clips)
    if has_peer:
        contenders["conventional"] = partial(conventional, clips_of(found.large, 1, 1 if asked.short else 2))
    rates = _rates(asked, clips, contenders)
    name = "layered from 720p, 1 view"
    targets = (Target("ratio", 15.0), Target("at_least", 70.0), Target("share", 0.75))
    says = f"{CONVENTIONAL}, of the originals; {_about(clips, rates)}"
    return _lines(name, rates, targets, says)


def _contenders(clips: Clips) -> dict[str, Callable[[], int]]:
    return {"ours": partial(ours, clips), "limit": partial(codec_alone, clips), "decoder": decoder_alone(clips)}


def _about(clips: Clips, rates: Mapping[str, Measured]) -> str:
    """Say what was measured: how many clips of how many videos, and what is decoded of them."""
    videos, count = clips.maker.index.num_videos, len(clips.choices)
    return (
        f"limit: {LIMIT} ({rates['decoder'].median:.3g} clips/s without these); {count} clips of {videos} videos,"
        f" {frames_decoded(clips) / count:.0f} frames decoded for each"
    )


def _rates(asked: Asked, clips: Clips, contenders: dict[str, Callable[[], int]]) -> dict[str, Measured]:
    """Let contenders take turns, with one more that goes through a decode child."""
    frames = clips.maker.spec.views * clips.maker.spec.grid.num_frames
    rounds = 1 if asked.short else TURNS * asked.repeats
    with closing(Sandbox(frames * SIZE * SIZE * 3, Limits())) as sandbox:
        return interleaved({**contenders, "child": partial(through_child, clips, sandbox)}, rounds)


def _lines(name: str, rates: Mapping[str, Measured], targets: tuple[Target, ...], says: str) -> list[Line]:
    line = rate_line("decode", name, rates["ours"], rates.get("conventional"), rates["limit"], targets, says)
    says = "through the decode child, which shares the core with its parent; the limit is ours without a child"
    child = rate_line("decode", f"{name}, in a child", rates["child"], None, rates["ours"], (), says)
    return [line, child]


def ours(clips: Clips) -> int:
    """Fetch and decode clips as a decode child does; return how many."""
    for choice in clips.choices:
        decode_one(clips.maker, choice)
    return clips.count


def decode_one(maker: ClipMaker, choice: Choice) -> Frames:
    """Fetch and decode one clip: (V, T, size, size, 3) uint8."""
    return decode_clip(file_of(maker, choice), maker.request(choice))[0]


def conventional(clips: Clips) -> int:
    """Decode clips the ordinary way; return how many."""
    for choice in clips.choices:
        request = clips.maker.request(choice)
        conventional_clips(Path(choice.video.uri), request.frames, request.crops, SIZE)
    return clips.count


def through_child(clips: Clips, sandbox: Sandbox) -> int:
    """Fetch clips and decode them in a child, as a decode actor does with a block; return how many."""
    jobs = [clips.maker.job(choice, segments_of(clips.maker, choice)) for choice in clips.choices]
    for answer in sandbox.run(jobs):
        if isinstance(answer, DecodeError):
            raise answer
    return clips.count


def codec_alone(clips: Clips) -> int:
    """Open videos whose bytes are at hand and decode clips' frames, making nothing of them; return how many clips."""
    frames_decoded(clips)
    return clips.count


def frames_decoded(clips: Clips) -> int:
    """Return how many frames have to be decoded for clips, after decoding them."""
    total = 0
    for choice in clips.choices:
        container, stream, packets, wanted = _packets(clips.maker, choice)
        with container:
            total += sum(1 for _ in decoded(stream.codec_context, packets, wanted))
    return total


def decoder_alone(clips: Clips) -> Callable[[], int]:
    """Return what gives the packets of clips, which are at hand, to a decoder."""
    prepared = []
    for choice in clips.choices:
        container, stream, packets, wanted = _packets(clips.maker, choice)
        with container:
            prepared.append((stream.codec_context.extradata, packets, wanted))

    def work() -> int:
        for extradata, packets, wanted in prepared:
            context = av.CodecContext.create("h264", "r")
            context.extradata, context.thread_count = extradata, 1
            for _ in decoded(context, packets, wanted):
                pass
        return clips.count

    return work


def _packets(
    maker: ClipMaker, choice: Choice
) -> tuple[InputContainer, VideoStream, list[av.Packet[Any]], frozenset[int]]:
    """Open a video and return the packets that decoding a clip takes, and the times of the wanted frames."""
    request = maker.request(choice)
    opened = open_from_header(file_of(maker, choice), request.size_px)
    if opened is None:
        raise DataError(f"{choice.video.uri} is no .mp4 or .mov file, which the limit of decoding is measured on")
    container, stream = opened
    gathered, wanted = gathered_packets(container, stream, request)
    return container, stream, needed(gathered, wanted, stream.codec_context.extradata), wanted
