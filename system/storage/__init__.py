"""URIs to bytes: local paths, file:// and s3:// (any S3-compatible endpoint), with one set of retry rules and errors.

Object storage has no rename, so a thing exists when its manifest, written last, says so; a single object appears whole
or not at all, and so does a local file here (written beside its place, then renamed).

A wrong bucket, key, credential or setting is a `DataError`; an object that is gone, or shorter than it was, is a
`MissingError`, which is one; a store that does not answer is a `StorageFault`, after the tries that retry.py
allows. s3.py, s3_upload.py and local.py do the work.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from system.errors import DataError, StorageFault
from system.lazy import lazy
from system.storage import local
from system.storage.errors import MissingError, ReplacedError, UnsupportedError
from system.storage.local import local_path
from system.storage.objects import ObjectInfo, endpoint

if TYPE_CHECKING:
    from system.storage import s3 as _s3
    from system.storage import s3_upload as _s3_upload
else:  # boto3 takes a fifth of a second, in every process of a run whose storage is a folder
    _s3, _s3_upload = lazy("system.storage.s3"), lazy("system.storage.s3_upload")

__all__ = [
    "MissingError",
    "ReplacedError",
    "UnsupportedError",
    "ObjectInfo",
    "absolute",
    "check_writable",
    "create",
    "delete",
    "endpoint",
    "enforces_create",
    "exists",
    "in_parallel",
    "is_s3",
    "join",
    "list_objects",
    "local_path",
    "merge_ranges",
    "read",
    "remove_folder",
    "size",
    "upload",
    "write",
]

# Ranges of one object that lie nearer to each other than this are fetched in one request: the bytes between them cost
# less than a second request's latency (about 20 ms at 50 MB/s).
MERGE_GAP_BYTES = 1 << 20


def is_s3(uri: str) -> bool:
    """Say whether a URI is an object's or prefix's in S3."""
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """Return a URI that means the same in every process: local paths made absolute, trailing slashes cut."""
    return uri.rstrip("/") if is_s3(uri) else str(local_path(uri).absolute())


def join(uri: str, *parts: str) -> str:
    """Append path segments to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def read(uri: str, start: int = 0, stop: int | None = None) -> bytes:
    """Return the bytes [start, stop) of an object; the whole of it without `stop`.

    Raises:
        MissingError: if there is no such object, or it ends before `stop`.
        DataError: if it may not be read.
        StorageFault: if storage does not answer, or answers with fewer bytes than the object has.
    """
    if stop is not None and stop <= start:
        return b""
    data = _s3.get(uri, start, stop) if is_s3(uri) else local.get(uri, start, stop)
    if stop is not None and len(data) != stop - start:
        length = size(uri)
        if length < stop:
            raise ReplacedError(f"{uri}: the object is {length} bytes, at least {stop} are expected: it was replaced")
        raise StorageFault(f"{uri}: asked for bytes {start} to {stop}, got {len(data)}")
    return data


def size(uri: str) -> int:
    """Return an object's size in bytes.

    Raises:
        MissingError: if there is no such object.
        DataError: if there is no such bucket, or it may not be read.
        StorageFault: if storage does not answer.
    """
    return _s3.size(uri) if is_s3(uri) else local.size(uri)


def exists(uri: str) -> bool:
    """Say whether an object (not a folder) lies at a URI."""
    try:
        size(uri)
    except MissingError:
        return False
    return is_s3(uri) or local_path(uri).is_file()


def write(uri: str, data: bytes) -> None:
    """Write an object whole; a reader sees the old bytes or the new ones, never a part."""
    if is_s3(uri):
        _s3.put(uri, data)
    else:
        local.put(uri, data)


def create(uri: str, data: bytes) -> bool:
    """Write an object whole if nothing is there yet; of many that try at once, one succeeds.

    Args:
        uri: of the object.
        data: bytes that nobody else would write there: they tell our object from another's when an answer was lost.

    Returns:
        Whether it was written.

    Raises:
        UnsupportedError: if the store says that it cannot do this; others write all the same (`enforces_create`).
    """
    return _s3.create(uri, data) if is_s3(uri) else local.create(uri, data)


def enforces_create(uri: str) -> bool:
    """Say whether a folder's store keeps `create` from writing over what is there; tried with a small object."""
    probe = join(uri, f".probe-{uuid.uuid4().hex[:8]}")
    try:
        create(probe, b"first")
    except UnsupportedError:
        return False
    try:
        return not create(probe, b"second")
    finally:
        delete([probe])


def check_writable(uri: str) -> None:
    """Write a small object beside a URI and delete it, so that work of hours does not end at a closed door.

    Raises:
        DataError: if nothing may be written there.
        StorageFault: if storage does not answer.
    """
    beside = f"{uri}.probe-{uuid.uuid4().hex[:8]}"
    write(beside, b"probe")
    delete([beside])


def upload(path: Path, uri: str) -> None:
    """Move a local file to a URI, in parts if it is large; the file is gone afterwards."""
    if is_s3(uri):
        _s3_upload.upload(path, uri)
    else:
        local.upload(path, uri)


def delete(uris: Iterable[str]) -> None:
    """Delete objects; what is not there is no error."""
    for uri in uris:
        if is_s3(uri):
            _s3.delete(uri)
        else:
            local.delete(uri)


def remove_folder(uri: str) -> None:
    """Remove an empty local folder; object storage has none."""
    if not is_s3(uri):
        with suppress(OSError):
            local_path(uri).rmdir()


def list_objects(uri: str, *, missing_ok: bool = False, follow_links: bool = False) -> Iterator[ObjectInfo]:
    """Yield every object under a folder or prefix, sorted by URI; hidden local files are left out.

    Args:
        uri: of the folder or prefix.
        missing_ok: a local folder that does not exist is empty, as a prefix without objects is.
        follow_links: look into links to local folders; not where what is found may be deleted.

    Raises:
        DataError: if the folder or bucket does not exist or may not be listed.
    """
    if is_s3(uri):
        yield from _s3.list_objects(uri)
        return
    root = local_path(uri)
    if not root.is_dir():
        if missing_ok:
            return
        raise DataError(f"{uri}: there is no such folder")
    for path in local.files_under(root, follow_links=follow_links):
        with local.told(str(path)):
            try:
                stat = path.stat()
            except FileNotFoundError:  # deleted while we list
                continue
        yield ObjectInfo(str(path), stat.st_size, f"{stat.st_mtime_ns:x}-{stat.st_size:x}")


def merge_ranges(ranges: Sequence[tuple[int, int]], gap: int = MERGE_GAP_BYTES) -> list[tuple[int, int]]:
    """Join half-open byte ranges that overlap or lie at most `gap` apart; the result is sorted."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1] + gap:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def in_parallel(tasks: Sequence[Callable[[], Any]], threads: int = 16) -> list[Any]:
    """Run I/O tasks side by side and return their results in order; the first error is raised."""
    if len(tasks) < 2:
        return [task() for task in tasks]
    with ThreadPoolExecutor(min(threads, len(tasks))) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]
