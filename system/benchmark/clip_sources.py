"""The videos that decoding is measured on: small ones as they came, large ones, and those in layers of the stride.

Those whose motion vectors make masks (`codec_motion.py`) are made here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from system import storage
from system.benchmark.stages import Asked
from system.core.clip import token_grid
from system.core.pairs import FramePair
from system.core.plan import EpochPlan
from system.data.clips import Choice, ClipMaker, ClipSpec
from system.data.index import Index, VideoRow
from system.data.reading import Segments, fetch
from system.data.shards import ShardOptions, make_shards
from system.data.sources import build_index
from system.data.supplied import SuppliedFile
from system.data.synthetic import encode, moving_scene
from system.errors import DecodeError

FRAMES, STRIDE, SIZE = 16, 4, 224
# Frames between key frames of layered shards: what jobs.make_shards takes for this stride.
KEY_EVERY = 8 * STRIDE
# The shorter side of a large source at least, px.
LARGE_PX = 720


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips that are measured, the same ones for all contenders.

    Attributes:
        maker: of their requests.
        choices: which clips.
    """

    maker: ClipMaker
    choices: tuple[Choice, ...]

    @property
    def count(self) -> int:
        """Clips that come of them, each view of a video one."""
        return len(self.choices) * self.maker.spec.views


def clips_of(index: Index, views: int, per_video: int, pairs: tuple[FramePair, ...] = ()) -> Clips:
    """Choose so many clips of every video of an index, where a run's draws put them; `pairs`: whose flow is wanted."""
    spec = ClipSpec(token_grid(FRAMES, SIZE, 2, 16), STRIDE, views, "auto", pairs=pairs)
    maker = ClipMaker(EpochPlan(index.num_videos, 0, index.group_videos, index.num_videos), spec, index, 0)
    return Clips(maker, tuple(maker.choose(slot) for slot in range(per_video * index.num_videos)))


def segments_of(maker: ClipMaker, choice: Choice) -> Segments:
    """Fetch what a clip is decoded from."""
    (answer,) = fetch([maker.reading(choice)])
    if isinstance(answer, DecodeError):
        raise answer
    return answer


def file_of(maker: ClipMaker, choice: Choice) -> SuppliedFile:
    """Fetch what a clip is decoded from, and return it as the file that a decoder is given."""
    return SuppliedFile(choice.video.num_bytes, segments_of(maker, choice), _nothing_more)


def _nothing_more(start: int, stop: int) -> bytes:
    raise DecodeError("storage", f"bytes {start} to {stop} were not fetched")


@dataclass(frozen=True, slots=True)
class Sources:
    """Indexes of the videos; None where the folder has no such ones.

    Attributes:
        small: as they came.
        large: the same, of `LARGE_PX` and more.
        layered: the large ones, re-encoded in layers of the stride.
    """

    small: Index | None
    large: Index | None
    layered: Index | None


def sources(asked: Asked) -> Sources:
    """Take the .mp4 and .mov videos in H.264 that are asked for, or make some, and re-encode the large ones."""
    scratch = Path(asked.scratch) / "decode"
    uri = asked.videos
    if uri == "synthetic":  # most of them small, and one large
        sizes = [(256, 340)] * (1 if asked.short else 3) + [(LARGE_PX, 1280)]
        uri = generated(scratch / "generated", sizes, 24 if asked.short else 132)
    writer = build_index(uri, str(scratch / "all.parquet"))
    rows = [Index(writer.uri).row(number) for number in range(writer.num_videos)]
    others = [row.name for row in rows if not _is_measured(row)]
    if others:
        asked.say(f"  not measured, since no .mp4 in H.264 of {FRAMES} frames or more: {', '.join(others)}")
    found = [row for row in rows if _is_measured(row)]
    small = copied(scratch / "small", [row for row in found if min(row.width, row.height) < LARGE_PX])
    large = copied(scratch / "large", [row for row in found if min(row.width, row.height) >= LARGE_PX])
    return Sources(small, large, None if large is None else layered(large, scratch / "layered"))


def _is_measured(row: VideoRow) -> bool:
    """Say whether both ways and the limit know what to do with a video."""
    is_mp4 = PurePosixPath(row.name).suffix.lower() in (".mp4", ".m4v", ".mov")
    return row.codec == "h264" and is_mp4 and row.num_frames >= FRAMES


def layered(index: Index, folder: Path) -> Index:
    """Make shards of videos, in layers of the stride."""
    options = ShardOptions("layered", layers=STRIDE, key_every=KEY_EVERY)
    return Index(make_shards(index, str(folder), options).uri)


def copied(folder: Path, rows: Sequence[VideoRow]) -> Index | None:
    """Put videos into a folder of their own and index it; None: there are none."""
    if not rows:
        return None
    folder.mkdir(parents=True)
    for number, row in enumerate(rows):
        data = storage.read(row.uri, row.byte_start, row.byte_start + row.num_bytes)
        (folder / f"{number:03d}-{PurePosixPath(row.name).name}").write_bytes(data)
    return Index(build_index(str(folder), str(folder / "index.parquet")).uri)


def generated(folder: Path, sizes: Sequence[tuple[int, int]], num_frames: int) -> str:
    """Make videos of known motion, one for each (height, width), and return their folder."""
    folder.mkdir(parents=True)
    for number, (height, width) in enumerate(sizes):
        scene = moving_scene(0, number, size=(height, width), num_frames=num_frames)
        path = folder / f"{number}-{height}.mp4"
        path.write_bytes(encode((scene.frame(frame) for frame in range(num_frames)), height, width))
    return str(folder)
