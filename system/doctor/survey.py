"""Looks at videos: a sample or all of them are listed, probed, decoded and compared, each in a decode child.

What follows from it is said by videos.py. T frames of a clip.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from system import storage
from system.core.plan import EpochPlan
from system.data.assemble import clip_bytes, clip_spec, limits_of
from system.data.clips import Choice, ClipMaker
from system.data.index import Index, IndexWriter, VideoRow
from system.data.reading import fetch
from system.data.sample import spread_slots
from system.data.scale import Frames
from system.data.sources import Candidate, SandboxPool, candidates, in_order, index_row, probe, stored_video
from system.errors import DataError, DecodeError
from system.recipe import Recipe

# Bytes that are read at once to compare whole videos.
PIECE_BYTES = 8 << 20
# Other videos of the same size that a video of a sample is compared with, at most.
TWINS = 4
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Clip:
    """What decoding one clip of a video showed.

    Attributes:
        difference: mean absolute difference of its frames from its first one, grey levels in [0, 255].
    """

    difference: float


@dataclass
class Survey:
    """What was seen of videos.

    Attributes:
        uri: of the folder, prefix or index.
        total: videos that are there by their names, or in the index.
        looked_at: of these, how many were opened.
        videos: that were read, in the order of their names.
        clips: name -> what decoding it showed.
        bad: name -> (code, reason) of those that could not be opened or decoded.
        torn: of these, how many are known from the listing alone: what is missing at the end of a tar.
        same: names of videos whose bytes are the same, in groups; the first of each is the one to keep.
        index_videos: that an index beside the videos knows, those that it rejected too; None: there is none.
    """

    uri: str
    total: int = 0
    looked_at: int = 0
    videos: list[VideoRow] = field(default_factory=list)
    clips: dict[str, Clip] = field(default_factory=dict)
    bad: dict[str, tuple[str, str]] = field(default_factory=dict)
    torn: int = 0
    same: list[list[str]] = field(default_factory=list)
    index_videos: int | None = None


def survey(uri: str, recipe: Recipe, count: int | None, workers: int, say: Say) -> Survey:
    """Look at videos.

    Args:
        uri: folder or prefix of videos and tar shards, or an index.parquet.
        recipe: says how clips are cut and decoded.
        count: videos of the sample, spread over all of them; None: all.
        workers: videos looked at side by side, each in a decode child.
        say: is told how far it is.

    Raises:
        DataError: if there is nothing to look at, or storage refuses the listing.
        StorageFault: if storage does not answer.
    """
    found = Survey(uri)
    listed = _from_index(uri, found) if uri.endswith(".parquet") else _from_folder(uri, found)
    found.total = len(listed.sizes)
    numbers = _spread(found.total, count)
    found.looked_at = len(numbers)
    say(f"looking at {len(numbers)} of {found.total} videos in {uri}")
    chosen = {number: listed.at(number) for number in numbers}
    with TemporaryDirectory(prefix="tubelet-doctor-") as folder:
        index = _probed(list(chosen.values()), found, Path(folder) / "index.parquet", workers)
        if index is not None:
            found.videos = list(index)
            _decode(recipe, index, found, workers)
    whole = {number: each for number, each in chosen.items() if each.name not in found.bad}
    found.same = _duplicates(whole, listed, workers)
    return found


class _Listed(NamedTuple):
    """All videos: what one of them is, and the sizes of all, bytes."""

    at: Callable[[int], Candidate]
    sizes: NDArray[np.int64]


def _from_index(uri: str, found: Survey) -> _Listed:
    index = Index(storage.absolute(uri))

    def at(number: int) -> Candidate:
        row = index.row(number)
        return Candidate(row.uri, row.name, row.byte_start, row.num_bytes, row.etag)

    return _Listed(at, index.numbers("num_bytes"))


def _from_folder(uri: str, found: Survey) -> _Listed:
    """List videos by their names; what is none is noted."""
    beside = storage.join(storage.absolute(uri), "index.parquet")
    if storage.exists(beside):
        index = Index(beside)
        found.index_videos = index.num_videos + index.num_rejected
    videos = list[Candidate]()
    for each in candidates(uri):
        if isinstance(each, Candidate):
            videos.append(each)
        else:
            found.bad[each.name] = (each.code, each.reason)
    found.torn = len(found.bad)
    return _Listed(videos.__getitem__, np.array([each.num_bytes for each in videos], np.int64))


def _spread(total: int, count: int | None) -> list[int]:
    """Return which videos are looked at, in their order."""
    return list(range(total)) if count is None or count >= total else sorted(spread_slots(total, count, 0))


def _probed(chosen: Sequence[Candidate], found: Survey, path: Path, workers: int) -> Index | None:
    """Open each video and write an index of those that are one; None: there is not one."""
    writer = IndexWriter(str(path), found.uri)
    with closing(SandboxPool()) as pool:

        def facts_of(each: Candidate) -> dict[str, object] | DecodeError:
            if not each.num_bytes:
                return DecodeError("open", "the file is empty")
            try:
                return probe(pool, stored_video(each.uri, each.byte_start, each.num_bytes))
            except DataError as error:  # one that may not be read says nothing of the others
                return DecodeError("storage", str(error))

        for each, facts in in_order(facts_of, chosen, workers):
            if isinstance(facts, DecodeError):
                found.bad[each.name] = (facts.code, facts.reason)
            else:
                writer.add(index_row(each, facts, "none"))
    if not writer.num_videos:
        return None
    writer.close()
    return Index(writer.uri)


def _decode(recipe: Recipe, index: Index, found: Survey, workers: int) -> None:
    """Decode one clip of each video, as a run's decode actors do."""
    plan = EpochPlan(index.num_videos, 0, index.group_videos, index.num_videos)
    maker = ClipMaker(plan, clip_spec(recipe), index, recipe.run.seed)
    turn = threading.Lock()  # the index's readers share what they have read
    with closing(SandboxPool(recipe.data.views * clip_bytes(recipe), limits_of(recipe))) as pool:

        def clip_of(slot: int) -> tuple[Choice, Clip | DecodeError]:
            with turn:
                choice = maker.choose(slot)
            return choice, _clip(maker, choice, pool)

        for _, (choice, outcome) in in_order(clip_of, range(index.num_videos), workers):
            if isinstance(outcome, DecodeError):
                found.bad[choice.video.name] = (outcome.code, outcome.reason)
            else:
                found.clips[choice.video.name] = outcome


def _clip(maker: ClipMaker, choice: Choice, pool: SandboxPool) -> Clip | DecodeError:
    try:
        (got,) = fetch([maker.reading(choice)])
        answer = got if isinstance(got, DecodeError) else pool.one(maker.job(choice, got))
    except DataError as error:
        return DecodeError("storage", str(error))
    if isinstance(answer, DecodeError):
        return answer
    assert answer.frames is not None
    return Clip(difference(answer.frames[0]))


def difference(frames: Frames) -> float:
    """Return how much frames (T, H, W, 3) differ from the first one on average, grey levels; 0 for a single one."""
    if len(frames) < 2:
        return 0.0
    return float(np.abs(frames[1:].astype(np.int16) - frames[:1]).mean())


def _duplicates(chosen: Mapping[int, Candidate], listed: _Listed, workers: int) -> list[list[str]]:
    """Return the names of videos with the same bytes; of those outside of a sample a few of the same size are read."""
    by_size: dict[int, list[Candidate]] = defaultdict(list)
    for each in chosen.values():
        by_size[each.num_bytes].append(each)
    twins: Counter[int] = Counter()
    for number in np.flatnonzero(np.isin(listed.sizes, list(by_size))).tolist():
        size = int(listed.sizes[number])
        if number not in chosen and twins[size] < TWINS:
            twins[size] += 1
            by_size[size].append(listed.at(number))
    alike = [each for same in by_size.values() if len(same) > 1 for each in same]
    groups: dict[str, list[str]] = defaultdict(list)
    for each, digest in in_order(_digest, alike, workers):
        if digest is not None:
            groups[digest].append(each.name)
    # The shortest name first: `a.mp4` is the one of which `a copy.mp4` is one.
    return [sorted(names, key=lambda name: (len(name), name)) for names in groups.values() if len(names) > 1]


def _digest(video: Candidate) -> str | None:
    """Return the SHA-256 of a video's bytes; None: it cannot be read any more."""
    digest = hashlib.sha256()
    try:
        for piece in _pieces(video):
            digest.update(piece)
    except DataError:
        return None
    return digest.hexdigest()


def _pieces(video: Candidate) -> Iterator[bytes]:
    stop = video.byte_start + video.num_bytes
    for start in range(video.byte_start, stop, PIECE_BYTES):
        yield storage.read(video.uri, start, min(stop, start + PIECE_BYTES))
