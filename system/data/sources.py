"""Finding and probing videos: a folder or prefix of files and tar shards becomes an index.

Rows come out in the order of the listing whatever finishes first, so the same files always give the same index.
"""

from __future__ import annotations

import tarfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

from system import storage
from system.data.index import IndexWriter, Rejected
from system.data.labels import folder_of
from system.data.probe import checked_facts
from system.data.sandbox import Answer, Job, Limits, Sandbox, Video
from system.errors import DataError, DecodeError
from system.range_file import RangeFile

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".flv",
        ".ts",
        ".mts",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".ogv",
        ".3gp",
    }
)
# What gzip, bzip2, xz and zstd files begin with.
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
# Bytes fetched at once while a tar's headers are walked.
TAR_CHUNK = 1 << 14

Labels = Literal["none", "folder"]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A range of bytes that should be a video."""

    uri: str
    name: str
    byte_start: int
    num_bytes: int
    etag: str


def candidates(uri: str) -> Iterator[Candidate | Rejected]:
    """Yield the videos under a folder or prefix by their names' endings, members of tar shards included.

    A tar that is cut short gives its whole members, and a `Rejected` for what is not there.

    Raises:
        DataError: if the folder or bucket does not exist, may not be listed, or holds none; or if a tar is compressed.
    """
    found, others = 0, 0
    root = storage.absolute(uri)
    for item in storage.list_objects(root, follow_links=True):
        name = item.uri.removeprefix(root).lstrip("/")
        suffix = PurePosixPath(name).suffix.lower()
        if not _is_text(item.uri):
            if suffix in VIDEO_SUFFIXES or suffix == ".tar":
                found += 1
                yield Rejected(_as_text(name), "open", "its name is no UTF-8")
            continue
        etag = item.etag if storage.is_s3(item.uri) else ""  # a local file's time changes when it is copied
        if suffix in VIDEO_SUFFIXES:
            found += 1
            yield Candidate(item.uri, name, 0, item.size, etag)
        elif suffix == ".tar":
            for member in _members(item, name, etag):
                found += 1
                yield member
        else:
            others += 1
    if not found:
        endings = ", ".join(sorted(VIDEO_SUFFIXES))
        raise DataError(f"{uri}: holds no videos ({others} other files); looked for {endings} and .tar")


def _is_text(name: str) -> bool:
    return name == _as_text(name)


def _as_text(name: str) -> str:
    """Return a name that can be written as UTF-8; file systems and tars hold others."""
    return name.encode(errors="backslashreplace").decode()


def _members(item: storage.ObjectInfo, name: str, etag: str) -> Iterator[Candidate | Rejected]:
    file = RangeFile(item.uri, 0, item.size, chunk=TAR_CHUNK)
    if file.read(6).startswith(COMPRESSED):
        raise DataError(f"{item.uri} is not a plain tar file; compressed tars cannot be read by range")
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isfile() and PurePosixPath(member.name).suffix.lower() in VIDEO_SUFFIXES:
                    path = _as_text(f"{name}/{member.name}")
                    if 0 <= member.offset_data <= member.offset_data + member.size <= item.size:
                        yield Candidate(item.uri, path, member.offset_data, member.size, etag)
                    else:
                        yield Rejected(path, "open", "the tar file ends inside of it")
    except storage.MissingError as error:  # gone, or replaced, since it was listed
        yield Rejected(name, "storage", str(error))
    except (tarfile.TarError, EOFError, OverflowError, ValueError) as error:
        yield Rejected(name, "open", f"the tar file cannot be read to its end ({str(error)[:200]})")


def stored_video(uri: str, byte_start: int, num_bytes: int, segments: tuple[tuple[int, bytes], ...] = ()) -> Video:
    """Describe a stored range of bytes to a decode child."""
    return Video(num_bytes, segments, lambda start, stop: storage.read(uri, byte_start + start, byte_start + stop))


class SandboxPool:
    """One sandbox for each thread that asks, kept until the pool is closed even if its thread has ended.

    Args:
        frame_bytes: of the largest result of a job.
        limits: what a child may use.
    """

    def __init__(self, frame_bytes: int = 1, limits: Limits | None = None) -> None:
        self._frame_bytes, self._limits = frame_bytes, limits or Limits()
        self._mine = threading.local()
        self._all: list[Sandbox] = []

    def one(self, job: Job) -> Answer | DecodeError:
        """Run a job in this thread's sandbox; what it raises, and how long frames are valid, is said there."""
        if not hasattr(self._mine, "sandbox"):
            self._mine.sandbox = Sandbox(self._frame_bytes, self._limits)
            self._all.append(self._mine.sandbox)
        sandbox: Sandbox = self._mine.sandbox
        return sandbox.one(job)

    def close(self) -> None:
        """End all children."""
        for sandbox in self._all:
            sandbox.close()


def probe(pool: SandboxPool, video: Video) -> dict[str, Any] | DecodeError:
    """Return what a video's header says: the fields of `VideoFacts`.

    Raises:
        DataError: if storage refuses the video's bytes.
        StorageFault: if storage does not answer.
    """
    answer = pool.one(Job(video, "probe", {}))
    if isinstance(answer, DecodeError):
        return answer
    try:
        return checked_facts(answer.values.get("facts"), video.size)
    except DecodeError as error:
        return error


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[tuple[Item, Result]]:
    """Apply a function to items side by side and yield (item, result) in the items' order, with few in flight.

    The first error is raised, and what has not begun by then never does.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > 4 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def build_index(
    uri: str,
    index_uri: str,
    *,
    labels: Labels = "none",
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, bad: None,
) -> IndexWriter:
    """Probe every video under a folder or prefix and write the index.

    Args:
        uri: folder or prefix.
        index_uri: where the index will lie.
        labels: `folder` takes the name of a video's folder as its label.
        workers: videos probed side by side, each in a process of its own.
        progress: called with (videos so far, rejected so far).

    Returns:
        The closed writer, which knows how many videos there are and what was rejected.

    Raises:
        DataError: if there is nothing to index, or storage refuses it.
        StorageFault: if storage does not answer; that says nothing about the video that was read.
    """
    writer = IndexWriter(index_uri, uri)
    pool = SandboxPool()

    def facts_of(candidate: Candidate | Rejected) -> dict[str, Any] | DecodeError:
        if isinstance(candidate, Rejected):
            return DecodeError(candidate.code, candidate.reason)
        if not candidate.num_bytes:
            return DecodeError("open", "the file is empty")
        return probe(pool, stored_video(candidate.uri, candidate.byte_start, candidate.num_bytes))

    try:
        for candidate, facts in in_order(facts_of, candidates(uri), workers):
            if isinstance(candidate, Candidate) and not isinstance(facts, DecodeError):
                writer.add(index_row(candidate, facts, labels))
            elif isinstance(facts, DecodeError):
                writer.reject(Rejected(candidate.name, facts.code, facts.reason))
            progress(writer.num_videos, len(writer.rejected))
    finally:
        pool.close()
    writer.close()
    return writer


def index_row(candidate: Candidate, facts: dict[str, Any], labels: Labels) -> dict[str, Any]:
    """Join what the listing and the probe know of a video."""
    return {
        "uri": candidate.uri,
        "name": candidate.name,
        "byte_start": candidate.byte_start,
        "num_bytes": candidate.num_bytes,
        "etag": candidate.etag,
        "label": folder_of(candidate.name) if labels == "folder" else None,
        **facts,
    }
