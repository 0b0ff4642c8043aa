"""URIs to bytes: local paths, file:// and s3:// (any S3-compatible endpoint), with one set of retry rules and errors.

Object storage has no rename, so a thing exists when its manifest, written last, says so; a single object appears whole
or not at all, and so does a local file here (written beside its place, then renamed).

S3 is spoken through boto3, whose environment variables apply: AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE and the usual
credential chain. A wrong bucket, key or credential is a `DataError`; a store that does not answer is a `StorageFault`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError

from system.errors import DataError, StorageFault

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# Requests that one process keeps in flight.
CONNECTIONS = 32
# Ranges of one object that lie nearer to each other than this are fetched in one request: the bytes between them cost
# less than a second request's latency (about 20 ms at 50 MB/s).
MERGE_GAP_BYTES = 1 << 20

_MISSING = {"404", "NoSuchKey", "NotFound"}
_NO_BUCKET = {"NoSuchBucket"}
_REFUSED = {
    "403",
    "AccessDenied",
    "Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AuthFailure",
}


class MissingError(DataError):
    """No object lies at a URI."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    uri: str
    size: int
    etag: str


def is_s3(uri: str) -> bool:
    """Say whether a URI is an object's or prefix's in S3."""
    return uri.startswith("s3://")


def local_path(uri: str) -> Path:
    """Return the path of a local URI.

    Raises:
        DataError: for a scheme that is neither file nor s3.
    """
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    if "://" in uri:
        raise DataError(f"storage is a local path, file:// or s3://, got {uri}")
    return Path(uri).expanduser()


def absolute(uri: str) -> str:
    """Return a URI that means the same in every process: local paths made absolute, trailing slashes cut."""
    return uri.rstrip("/") if is_s3(uri) else str(local_path(uri).absolute())


def join(uri: str, *parts: str) -> str:
    """Append path segments to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise DataError(f"{uri}: an S3 URI is s3://bucket/key, got no bucket")
    return bucket, key


def endpoint() -> str:
    """Return the S3 endpoint that is spoken to, for messages."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS's own endpoint"


@lru_cache(maxsize=1)
def _client(_process: int) -> S3Client:
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"max_attempts": 6, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
        # Other S3-compatible stores do not all know the newer default checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client("s3", config=config)


def client() -> S3Client:
    """Return this process's S3 client (one per process: a client does not survive a fork)."""
    return _client(os.getpid())


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Turn what boto3 raises into our errors, in one sentence that names what was tried."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        bucket = _split(uri)[0]
        if code in _NO_BUCKET:
            raise DataError(f"{uri}: there is no bucket {bucket} at {endpoint()}") from error
        if code in _MISSING:
            raise MissingError(f"{uri}: there is no such object at {endpoint()}") from error
        if code in _REFUSED:
            raise DataError(
                f"{uri}: {endpoint()} refused the credentials ({code}); check AWS_PROFILE or the instance's role, and"
                f" that they may read and list the bucket {bucket}"
            ) from error
        raise StorageFault(f"{uri}: {endpoint()} answered {code}: {error}") from error
    except NoCredentialsError as error:
        raise DataError(f"{uri}: no AWS credentials were found; set AWS_PROFILE or run under a role") from error
    except EndpointConnectionError as error:
        raise StorageFault(
            f"{uri}: could not connect to {endpoint()}; check AWS_ENDPOINT_URL and the network"
        ) from error
    except BotoCoreError as error:
        raise StorageFault(f"{uri}: {endpoint()}: {error}") from error
    except FileNotFoundError as error:
        raise MissingError(f"{uri}: there is no such file or folder") from error
    except PermissionError as error:
        raise DataError(f"{uri}: permission denied") from error


def read(uri: str, start: int = 0, stop: int | None = None) -> bytes:
    """Return the bytes [start, stop) of an object; the whole of it without `stop`.

    Raises:
        MissingError: if there is no such object.
        DataError: if it may not be read.
        StorageFault: if storage does not answer, or answers with fewer bytes than it should.
    """
    if stop is not None and stop <= start:
        return b""
    with _told(uri):
        if is_s3(uri):
            bucket, key = _split(uri)
            extra: dict[str, Any] = {}
            if start or stop is not None:
                extra["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            data = client().get_object(Bucket=bucket, Key=key, **extra)["Body"].read()
        else:
            with local_path(uri).open("rb") as file:
                file.seek(start)
                data = file.read() if stop is None else file.read(stop - start)
    if stop is not None and len(data) != stop - start:
        raise StorageFault(f"{uri}: asked for bytes {start} to {stop}, got {len(data)}")
    return data


def size(uri: str) -> int:
    """Return an object's size in bytes.

    Raises:
        MissingError: if there is no such object.
    """
    with _told(uri):
        if is_s3(uri):
            bucket, key = _split(uri)
            return int(client().head_object(Bucket=bucket, Key=key)["ContentLength"])
        return local_path(uri).stat().st_size


def exists(uri: str) -> bool:
    """Say whether an object (not a folder) lies at a URI."""
    try:
        size(uri)
    except MissingError:
        return False
    return is_s3(uri) or local_path(uri).is_file()


def write(uri: str, data: bytes) -> None:
    """Write an object whole; a reader sees the old bytes or the new ones, never a part."""
    with _told(uri):
        if is_s3(uri):
            bucket, key = _split(uri)
            client().put_object(Bucket=bucket, Key=key, Body=data)
            return
        path = local_path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)


def upload(path: Path, uri: str) -> None:
    """Move a local file to a URI, in parts if it is large; the file is gone afterwards."""
    with _told(uri):
        if is_s3(uri):
            bucket, key = _split(uri)
            client().upload_file(str(path), bucket, key)
            path.unlink()
            return
        target = local_path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place first: the file may come from another file system, from which nothing can be renamed.
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.move(path, beside)
        beside.replace(target)


def delete(uris: Iterable[str]) -> None:
    """Delete objects; what is not there is no error."""
    for uri in uris:
        with _told(uri):
            if is_s3(uri):
                bucket, key = _split(uri)
                client().delete_object(Bucket=bucket, Key=key)
            else:
                local_path(uri).unlink(missing_ok=True)


def remove_folder(uri: str) -> None:
    """Remove an empty local folder; object storage has none."""
    if not is_s3(uri):
        with suppress(OSError):
            local_path(uri).rmdir()


def list_objects(uri: str, *, missing_ok: bool = False) -> Iterator[ObjectInfo]:
    """Yield every object under a folder or prefix, sorted by URI; hidden local files are left out.

    Args:
        uri: of the folder or prefix.
        missing_ok: a local folder that does not exist is empty, as a prefix without objects is.

    Raises:
        DataError: if the folder or bucket does not exist or may not be listed.
    """
    if is_s3(uri):
        yield from _list_s3(uri)
        return
    root = local_path(uri)
    if not root.is_dir():
        if missing_ok:
            return
        raise DataError(f"{uri}: there is no such folder")
    # Sorted as text, as S3 does, and not folder by folder.
    for path in sorted((path for path in root.rglob("*") if path.is_file()), key=str):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            stat = path.stat()
            yield ObjectInfo(str(path), stat.st_size, f"{stat.st_mtime_ns:x}-{stat.st_size:x}")


def _list_s3(uri: str) -> Iterator[ObjectInfo]:
    bucket, key = _split(uri)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    with _told(uri):
        for page in pages:
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):
                    etag = entry["ETag"].strip('"')
                    yield ObjectInfo(f"s3://{bucket}/{entry['Key']}", entry["Size"], etag)


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
