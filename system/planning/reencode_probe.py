"""Whether re-encoding would pay: a few of the user's videos re-encoded in layers of the stride, and decoded again.

What is measured is `make_shards --layout layered` itself, on one core, in a temporary folder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from system.benchmark.timing import one_core
from system.core.plan import EpochPlan
from system.data.assemble import clip_spec
from system.data.clips import ClipMaker
from system.data.index import Index, IndexWriter, VideoRow
from system.data.shards import LARGEST_LAYERS, ShardOptions, make_shards
from system.errors import DataError
from system.planning.data_probe import decode_within, decoding
from system.planning.rates import mean_rate
from system.planning.records import Reencoded
from system.recipe import Recipe

# Source px that a core re-encodes in a second, to choose videos that fit into the time there is; what it did with 720p
# on two cores of 2026 was 50 to 90 million.
PX_PER_S = 50e6
# Videos that are re-encoded at most, and clips of each that are decoded.
VIDEOS = 4
CLIPS = 4
# Share of the time in which they are re-encoded; in the rest they are decoded, before and after.
ENCODING = 0.6


def px_of(video: VideoRow) -> int:
    """Return the px of all frames of a video."""
    return video.num_frames * video.width * video.height


def affordable(videos: Sequence[VideoRow], seconds: float) -> list[VideoRow]:
    """Choose the first videos of a sample that are re-encoded in the time; each counts once.

    One is taken where it alone takes up to twice the time.
    """
    left, chosen = seconds * PX_PER_S, list[VideoRow]()
    for video in {each.video_id: each for each in videos}.values():
        if len(chosen) < VIDEOS and px_of(video) <= left:
            chosen.append(video)
            left -= px_of(video)
    if chosen or not videos:
        return chosen
    least = min(videos, key=px_of)
    return [least] if px_of(least) <= 2 * seconds * PX_PER_S else []


def _useless(recipe: Recipe, videos: Sequence[VideoRow]) -> str | None:
    """Say why nothing would be gained, whatever it cost; None: something might."""
    stride = recipe.data.stride
    if not 2 <= stride <= LARGEST_LAYERS:
        return f"layers are for data.stride of 2 to {LARGEST_LAYERS}, the recipe has {stride}"
    if recipe.record.labelled:
        return "layers hold every data.stride-th frame, and clips with labels take others"
    if all(video.layers and not stride % video.layers for video in videos):
        return "the videos are in layers of the stride already"
    return None


def probe_reencoding(recipe: Recipe, videos: Sequence[VideoRow], seconds: float) -> Reencoded | str:
    """Re-encode a few videos of a sample and decode them before and after; or say why that was not done.

    Raises:
        DataError: if storage refuses one that was re-encoded.
    """
    useless, stride = _useless(recipe, videos), recipe.data.stride
    if useless is not None:
        return useless
    chosen = affordable(videos, ENCODING * seconds)
    if not chosen:
        return f"the sampled videos are too long to re-encode one in {ENCODING * seconds:.0f} s; give more --seconds"
    with TemporaryDirectory(prefix="tubelet-plan-") as folder, one_core():
        before = _index_of([min(chosen, key=px_of), *chosen], Path(folder) / "before.parquet")
        options = ShardOptions("layered", layers=stride, key_every=8 * stride)
        done: dict[int, float] = {}

        def note(count: int, _all: int) -> None:
            done.setdefault(count, time.perf_counter())

        try:
            shards = make_shards(before, str(Path(folder) / "shards"), options, workers=1, progress=note)
        except DataError as error:  # none of them
            return f"the sampled videos cannot be re-encoded: {error}"
        if shards.rejected:
            return f"{shards.rejected[0].name} cannot be re-encoded: {shards.rejected[0].reason}"
        # The first one is there twice: a child starts in its time.
        took = done[before.num_videos] - done[1]
        after = Index(shards.uri)
        left = (1 - ENCODING) * seconds / 2
        faster = _core_s(recipe, before, left) / _core_s(recipe, after, left)
        sizes = [sum(index.row(number).num_bytes for number in range(1, index.num_videos)) for index in (before, after)]
    return Reencoded(len(chosen), sum(map(px_of, chosen)) / took, faster, sizes[1] / sizes[0])


def _index_of(videos: Sequence[VideoRow], path: Path) -> Index:
    writer = IndexWriter(str(path), "a sample")
    for video in videos:
        writer.add({name: value for name, value in asdict(video).items() if name not in ("video_id", "duration_s")})
    writer.close()
    return Index(writer.uri)


def _core_s(recipe: Recipe, index: Index, seconds: float) -> float:
    """Return the seconds of a core for a clip, the mean over all videos of an index but the first."""
    count = index.num_videos
    maker = ClipMaker(EpochPlan(count, 0, index.group_videos, count), clip_spec(recipe), index, recipe.run.seed)
    slots = [slot for slot in range(CLIPS * count) if maker.video_at(slot, 0)]
    with decoding(recipe) as sandbox:
        found = decode_within(maker, [maker.choose(slot) for slot in slots], sandbox, seconds, turn=count - 1)
    return 1 / mean_rate(found.decode_s, recipe.data.views)[0]
