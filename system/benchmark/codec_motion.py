"""Masks from the motion vectors of layered shards: clips a second to `visible`, and what that adds to decoding alone.

Everything is what a decode child and its actor do for a clip, in this process: bytes, frames, flow, mask. Where a
stream has too few vectors the fallback's flow counts too, as it does in a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from statistics import median

import torch

from system import storage
from system.benchmark.line import Line, Target
from system.benchmark.stages import Asked
from system.benchmark.timing import Measured, interleaved, one_core
from system.config import MotionSection
from system.core.clip import token_grid
from system.core.masks import Visible
from system.core.plan import EpochPlan
from system.data.clips import Choice, ClipMaker, ClipSpec
from system.data.decoders import decode_clip
from system.data.index import Index
from system.data.masking import Masker
from system.data.reading import fetch
from system.data.scale import Frames
from system.data.shards import ShardOptions, make_shards
from system.data.sources import build_index
from system.data.supplied import SuppliedFile
from system.data.synthetic import encode, moving_scene
from system.data.vectors import VectorCollector
from system.errors import DecodeError
from system.methods.mgm import MGM, MGMOptions
from system.motion.base import motion_source

FRAMES, STRIDE, SIZE, PATCH = 16, 4, 224, 16
# The shorter side of what counts as a large source, px.
LARGE_PX = 720
CLIPS_PER_S = 60.0
PERCENT_MORE = 10.0


@dataclass(frozen=True, slots=True)
class Work:
    """What is decoded and masked.

    Attributes:
        maker: of requests that ask for motion vectors.
        choices: which clips.
        masker: of their masks.
    """

    maker: ClipMaker
    choices: tuple[Choice, ...]
    masker: Masker


def measure(asked: Asked) -> Sequence[Line]:
    """Measure decoding with masks from vectors, and decoding alone, in turn."""
    index = layered(asked)
    if index is None:
        asked.say("no H.264 video of 720 lines is there to make layered shards of: nothing is measured of vectors")
        return ()
    work = work_of(index, 2 if asked.short else max(1, 16 // index.num_videos))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_core():
            contenders: dict[str, Callable[[], int]] = {
                "alone": partial(decoded_all, work),
                "masked": partial(masked_all, work),
            }
            found = interleaved(contenders, 2 * asked.repeats)
    finally:
        torch.set_num_threads(threads)
    fell = sum(masked(work, choice)[2] for choice in work.choices)
    what = f"{index.num_videos} videos in layers of {STRIDE}, {len(work.choices)} clips"
    return lines(found, f"{what}, {fell} of them without vectors enough" if fell else what)


def lines(found: dict[str, Measured], what: str) -> tuple[Line, Line]:
    """Return the lines of rates of `alone` and `masked`."""
    alone, both = found["alone"], found["masked"]
    more = [100 * (before / after - 1) for before, after in zip(alone.rates, both.rates, strict=True)]
    rate = Line(
        "mask",
        "layered decoding with codec motion",
        "clips/s",
        both.median,
        limit=alone.median,
        targets=(Target("at_least", CLIPS_PER_S),),
        repeats=len(both.rates),
        spread=both.spread,
        says=f"from bytes to visible; the limit is decoding the same clips without masks; {what}",
    )
    extra = Line(
        "mask",
        "codec vectors",
        "% on top of decoding",
        median(more),
        targets=(Target("at_most", PERCENT_MORE),),
        more=False,
        repeats=len(more),
        spread=(max(more) - min(more)) / max(abs(median(more)), 1e-9),
        says=f"time to visible over time to frames, less one; {what}",
    )
    return rate, extra


def decoded_all(work: Work) -> int:
    """Decode every clip, without its vectors; return how many."""
    for choice in work.choices:
        decoded(work, choice)
    return len(work.choices)


def masked_all(work: Work) -> int:
    """Decode and mask every clip; return how many."""
    for choice in work.choices:
        masked(work, choice)
    return len(work.choices)


def decoded(work: Work, choice: Choice) -> Frames:
    """Decode one clip: (1, T, size, size, 3)."""
    request = replace(work.maker.request(choice), pairs=())
    return decode_clip(_file(work, choice), request)[0]


def masked(work: Work, choice: Choice) -> tuple[Frames, Visible, bool]:
    """Decode and mask one clip; say also whether its stream fell back."""
    request = work.maker.request(choice)
    vectors = VectorCollector(request)
    frames, _ = decode_clip(_file(work, choice), request, vectors)
    made = work.masker(work.maker, choice.slot, frames, vectors.flow())
    return frames, made["visible"], bool(made["fallback"][0])


def _file(work: Work, choice: Choice) -> SuppliedFile:
    (answer,) = fetch([work.maker.reading(choice)])
    if isinstance(answer, DecodeError):
        raise answer
    return SuppliedFile(choice.video.num_bytes, answer, _nothing_more)


def _nothing_more(start: int, stop: int) -> bytes:
    raise DecodeError("storage", f"bytes {start} to {stop} were not fetched")


def work_of(index: Index, per_video: int) -> Work:
    """Return so many clips of every video of an index, where a run's draws put them, and MGM's masks."""
    grid, options = token_grid(FRAMES, SIZE, 2, PATCH), MGMOptions(mask_ratio=0.9)
    spec = ClipSpec(grid, STRIDE, 1, "auto", (), MGM.pairs(options, FRAMES))
    maker = ClipMaker(EpochPlan(index.num_videos, 0, index.group_videos, index.num_videos), spec, index, 0)
    source = motion_source(MotionSection(source="codec"))
    choices = tuple(maker.choose(slot) for slot in range(per_video * index.num_videos))
    return Work(maker, choices, Masker(MGM, options, source, from_codec=True))


def layered(asked: Asked) -> Index | None:
    """Make layered shards of the large H.264 videos that are asked for; None where there are none."""
    folder = Path(asked.scratch) / "codec"
    uri = _generated(folder / "videos", asked.short) if asked.videos == "synthetic" else asked.videos
    index = Index(build_index(uri, str(folder / "all.parquet")).uri)
    rows = [row for row in index if row.codec == "h264" and row.num_frames >= FRAMES * STRIDE]
    large = [row for row in rows if min(row.width, row.height) >= LARGE_PX or asked.videos == "synthetic"]
    if not large:
        return None
    chosen = folder / "large"
    chosen.mkdir(parents=True)
    for number, row in enumerate(large):
        data = storage.read(row.uri, row.byte_start, row.byte_start + row.num_bytes)
        (chosen / f"{number:03d}-{PurePosixPath(row.name).name}").write_bytes(data)
    source = Index(build_index(str(chosen), str(folder / "large.parquet")).uri)
    shape = ShardOptions("layered", key_every=8 * STRIDE, layers=STRIDE)
    return Index(make_shards(source, str(folder / "shards"), shape).uri)


def _generated(folder: Path, short: bool) -> str:
    """Make videos of known motion, of the size that layered shards have."""
    folder.mkdir(parents=True)
    count = FRAMES * STRIDE if short else 2 * FRAMES * STRIDE
    for number in range(1 if short else 4):
        scene = moving_scene(0, number, size=(256, 456), num_frames=count)
        data = encode((scene.frame(frame) for frame in range(count)), scene.height, scene.width)
        (folder / f"{number}.mp4").write_bytes(data)
    return str(folder)
