"""Storage in S3 and whatever speaks like it, through boto3, whose environment variables apply.

AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION, AWS_PROFILE and the usual credential chain. boto3 itself reads
AWS_DEFAULT_REGION only, so AWS_REGION, which every other SDK reads, is passed to it here.

Each request is tried again by retry.py and never by boto3, so that tries are counted once. Each answer's length is
compared with what was asked for; what is written carries a checksum, by which a store refuses torn bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from system.errors import DataError
from system.storage.errors import MissingError
from system.storage.objects import ObjectInfo, endpoint
from system.storage.retry import number_from, retried
from system.storage.s3_errors import MISSING, ShortError, code_of, passing, split, told

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

T = TypeVar("T")

# Requests that one process keeps in flight.
CONNECTIONS = 32
CONNECT_TIMEOUT_S = 5.0
# Silence after which a request is given up: a store that works answers in under a second, and two of these fit into
# the 30 s after which a run's lease expires.
READ_TIMEOUT_S = 15.0
READ_TIMEOUT_VARIABLE = "TUBELET_STORAGE_READ_TIMEOUT_S"
# A body that comes slower than this for longer than the time-out is given up as well; such a link trains nothing.
SLOWEST_BYTES_PER_S = 64e3
PIECE_BYTES = 1 << 18


_making = threading.Lock()


@lru_cache(maxsize=1)
def _client(_process: int) -> S3Client:
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=_read_timeout_s(),
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
        # Other S3-compatible stores do not all know the newer default checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.Session(region_name=os.environ.get("AWS_REGION") or None).client("s3", config=config)


def _read_timeout_s() -> float:
    return number_from(READ_TIMEOUT_VARIABLE, READ_TIMEOUT_S, least=0.01)


def client() -> S3Client:
    """Return this process's S3 client (one per process: a client does not survive a fork)."""
    with _making:  # two threads must not make a client at once
        return _client(os.getpid())


def forget_client() -> None:
    """Let go of this process's client; the next one is made from the environment as it is then."""
    with _making:
        _client.cache_clear()


def asked(uri: str, request: Callable[[int], T]) -> T:
    """Send a request until it is answered; it gets the number of tries that failed."""
    with told(uri):
        return retried(request, uri, passing)


def get(uri: str, start: int, stop: int | None) -> bytes:
    """Return the bytes [start, stop) of an object, fewer only if it ends before."""
    bucket, key = split(uri)
    # A range is named for a whole object too: the answer then says how long it is, beside the length of what it sends.
    wanted = f"bytes={start}-{'' if stop is None else stop - 1}"

    def once(_: int) -> bytes:
        try:
            answer = client().get_object(Bucket=bucket, Key=key, Range=wanted)
        except ClientError as error:
            if code_of(error) in ("InvalidRange", "416"):
                return b""  # the object ends before `start`
            raise
        length = _promised(answer.get("ContentRange", ""), start, stop)
        if length is None:  # a store that does not know ranges sends the whole object
            return _body(answer["Body"], size(uri))[start:stop]
        return _body(answer["Body"], length)

    return asked(uri, once)


def _promised(content_range: str, start: int, stop: int | None) -> int | None:
    """Return the bytes that an answer should have, by its header "bytes 0-9/25"; None if it has none."""
    said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range)
    if not said:
        return None
    first, last, whole = int(said[1]), int(said[2]), said[3]
    ends = last + 1 if whole == "*" else min(int(whole), int(whole) if stop is None else stop)
    if first != start or last + 1 != ends:
        raise ShortError(f"was asked for bytes {start} to {ends}, and answered with {first} to {last + 1}")
    return ends - start


def _body(body: Any, length: int) -> bytes:
    """Read an answer's body as it comes.

    Raises:
        ShortError: if it has another length, or trickles.
    """
    deadline = time.monotonic() + _read_timeout_s() + length / SLOWEST_BYTES_PER_S
    pieces: list[bytes] = []
    got = 0
    try:
        # Not boto3's own `read`, which waits for all that it was asked for however slowly it comes.
        while piece := body._raw_stream.read1(PIECE_BYTES):
            pieces.append(piece)
            got += len(piece)
            if time.monotonic() > deadline:
                raise ShortError(f"sent {got} of {length} bytes and is too slow")
        if got != length:
            raise ShortError(f"sent {got} of {length} bytes")
    except BaseException:
        body.close()  # or the rest of this answer would be read as the next one
        raise
    return b"".join(pieces)


def size(uri: str) -> int:
    """Return an object's size in bytes."""
    try:
        return int(head(uri)["ContentLength"])
    except MissingError:
        # A HEAD does not say whether it is the object or the bucket that is not there.
        bucket = split(uri)[0]
        if not _has_bucket(uri, bucket):
            raise DataError(f"{uri}: there is no bucket {bucket} at {endpoint()}") from None
        raise


def head(uri: str) -> Any:
    """Return what a store says of an object without its bytes."""
    bucket, key = split(uri)
    return asked(uri, lambda _: client().head_object(Bucket=bucket, Key=key))


def _has_bucket(uri: str, bucket: str) -> bool:
    def once(_: int) -> bool:
        try:
            client().head_bucket(Bucket=bucket)
        except ClientError as error:
            if passing(error):
                raise
            return code_of(error) not in {*MISSING, "NoSuchBucket"}
        except BotoCoreError as error:
            if passing(error):
                raise
        return True  # the object was asked for just now, and that answer stands

    return asked(uri, once)


def put(uri: str, data: bytes) -> None:
    """Write an object whole."""
    bucket, key = split(uri)
    asked(uri, lambda _: client().put_object(Bucket=bucket, Key=key, Body=data, ContentMD5=md5(data)))


def md5(data: bytes) -> str:
    """Return the checksum that a store compares with the bytes that reach it."""
    return b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def create(uri: str, data: bytes) -> bool:
    """Write an object if none is there; say whether it was written.

    Raises:
        UnsupportedError: if the store says that it cannot.
    """
    bucket, key = split(uri)

    def once(failed: int) -> bool:
        try:
            client().put_object(Bucket=bucket, Key=key, Body=data, ContentMD5=md5(data), IfNoneMatch="*")
        except ClientError as error:
            if code_of(error) not in ("PreconditionFailed", "412"):
                raise
            return failed > 0 and _is(uri, data)  # a try whose answer was lost may have written it
        return True

    return asked(uri, once)


def _is(uri: str, data: bytes) -> bool:
    try:
        return get(uri, 0, None) == data
    except MissingError:
        return False


def delete(uri: str) -> None:
    """Delete an object if it is there."""
    bucket, key = split(uri)
    with suppress(MissingError):  # S3 says nothing of what is not there; Google's answers 404
        asked(uri, lambda _: client().delete_object(Bucket=bucket, Key=key))


def list_objects(uri: str) -> Iterator[ObjectInfo]:
    """Yield every object under a prefix, in the order of their keys."""
    bucket, key = split(uri)
    where: Any = {"Bucket": bucket, "Prefix": key.rstrip("/") + "/" if key.strip("/") else ""}
    while True:
        page = asked(uri, lambda _: _page(where))
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):
                yield ObjectInfo(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["ETag"].strip('"'))
        if not page.get("IsTruncated"):
            return
        where["ContinuationToken"] = page["NextContinuationToken"]


def _page(where: Any) -> ListObjectsV2OutputTypeDef:
    page = client().list_objects_v2(**where)
    # boto3 takes an answer without a body for a page without objects.
    if not {"IsTruncated", "KeyCount", "Name"} & page.keys():
        raise ShortError("sent a listing that says nothing")
    if page.get("IsTruncated") and "NextContinuationToken" not in page:
        raise ShortError("sent a listing that goes on, and not where")
    return page
