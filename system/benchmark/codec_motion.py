"""Masks from the motion vectors of layered shards: clips a second to `visible`, and what that adds to decoding alone.

Everything is what a decode child and its actor do for a clip, in this process: bytes, frames, flow, mask. Where a
stream has too few vectors the fallback's flow counts too, as it does in a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from system.benchmark.clip_sources import FRAMES, LARGE_PX, STRIDE, clips_of, copied, file_of, generated, layered
from system.benchmark.line import Line, Target, rate_line
from system.benchmark.stages import Asked
from system.benchmark.timing import Measured, interleaved, one_core
from system.benchmark.torch_work import threads
from system.config import MotionSection
from system.core.masks import Visible
from system.data.clips import Choice, ClipMaker
from system.data.decoders import decode_clip
from system.data.index import Index
from system.data.masking import Masker
from system.data.scale import Frames
from system.data.sources import build_index
from system.data.vectors import VectorCollector
from system.methods.mgm import MGM, MGMOptions
from system.motion.base import motion_source

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
    index = shards_of(asked)
    if index is None:
        asked.say("no H.264 video of 720 lines is there to make layered shards of: nothing is measured of vectors")
        return ()
    work = work_of(index, 2 if asked.short else max(1, 16 // index.num_videos))
    contenders: dict[str, Callable[[], int]] = {
        "alone": partial(decoded_all, work),
        "masked": partial(masked_all, work),
    }
    with one_core(), threads(1):
        found = interleaved(contenders, 2 * asked.repeats)
    fell = sum(masked(work, choice)[2] for choice in work.choices)
    what = f"{index.num_videos} videos in layers of {STRIDE}, {len(work.choices)} clips"
    return lines(found, f"{what}, {fell} of them without vectors enough" if fell else what)


def lines(found: dict[str, Measured], what: str) -> tuple[Line, Line]:
    """Return the lines of rates of `alone` and `masked`."""
    alone, both = found["alone"], found["masked"]
    more = [100 * (before / after - 1) for before, after in zip(alone.rates, both.rates, strict=True)]
    says = f"from bytes to visible; the limit is decoding the same clips without masks; {what}"
    targets = (Target("at_least", CLIPS_PER_S),)
    rate = rate_line("mask", "layered decoding with codec motion", both, None, alone, targets, says)
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
    return decode_clip(file_of(work.maker, choice), request)[0]


def masked(work: Work, choice: Choice) -> tuple[Frames, Visible, bool]:
    """Decode and mask one clip; say also whether its stream fell back."""
    request = work.maker.request(choice)
    vectors = VectorCollector(request)
    frames, _ = decode_clip(file_of(work.maker, choice), request, vectors)
    made = work.masker(work.maker, choice.slot, frames, vectors.flow())
    return frames, made["visible"], bool(made["fallback"][0])


def work_of(index: Index, per_video: int) -> Work:
    """Return so many clips of every video of an index, where a run's draws put them, and MGM's masks."""
    options = MGMOptions(mask_ratio=0.9)
    clips = clips_of(index, 1, per_video, MGM.pairs(options, FRAMES))
    source = motion_source(MotionSection(source="codec"))
    return Work(clips.maker, clips.choices, Masker(MGM, options, source, from_codec=True))


def shards_of(asked: Asked) -> Index | None:
    """Make layered shards of the large H.264 videos that are asked for; None where there are none."""
    folder, uri, least = Path(asked.scratch) / "codec", asked.videos, LARGE_PX
    if uri == "synthetic":  # of the size that layered shards have
        count, least = FRAMES * STRIDE if asked.short else 2 * FRAMES * STRIDE, 0
        uri = generated(folder / "videos", [(256, 456)] * (1 if asked.short else 4), count)
    index = Index(build_index(uri, str(folder / "all.parquet")).uri)
    rows = [row for row in index if row.codec == "h264" and row.num_frames >= FRAMES * STRIDE]
    large = copied(folder / "large", [row for row in rows if min(row.width, row.height) >= least])
    return None if large is None else layered(large, folder / "shards")
