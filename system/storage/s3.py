"""Storage in S3 and whatever speaks like it, through boto3, whose environment variables apply.

AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION, AWS_PROFILE and the usual credential chain. boto3 itself reads
AWS_DEFAULT_REGION only, so AWS_REGION, which every other SDK reads, is passed to it here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from urllib3.exceptions import HTTPError

from system.errors import DataError, StorageFault, TubeletError
from system.storage.errors import MissingError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# Requests that one process keeps in flight.
CONNECTIONS = 32
# boto3 repeats a request until its answer begins; a connection cut in the middle of a body is for us to repeat.
BODY_ATTEMPTS = 5
# Seconds before the second attempt, doubled for each one after it: 3 s in all.
BODY_PAUSE_S = 0.2

_MISSING = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {
    "401",
    "403",
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthFailure",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "Unauthorized",
}
_ELSEWHERE = {"301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
# A person's settings, found wrong before any request is sent.
_MISTAKES = (
    ConfigNotFound,
    ConfigParseError,
    InvalidRegionError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    uri: str
    size: int
    etag: str


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of a URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise DataError(f"{uri}: an S3 URI is s3://bucket/key, got no bucket")
    return bucket, key


def endpoint() -> str:
    """Return the S3 endpoint that is spoken to, for messages."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS's own endpoint"


_making = threading.Lock()


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
    return boto3.Session(region_name=os.environ.get("AWS_REGION") or None).client("s3", config=config)


def client() -> S3Client:
    """Return this process's S3 client (one per process: a client does not survive a fork)."""
    with _making:  # two threads must not make a client at once
        return _client(os.getpid())


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Turn what boto3 raises, the making of its client included, into our errors: one sentence, what was tried."""
    try:
        yield
    except S3UploadFailedError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ClientError):
            raise _answered(uri, cause) from error
        raise StorageFault(f"{uri}: {endpoint()}: {error}") from error
    except ClientError as error:
        raise _answered(uri, error) from error
    except NoCredentialsError as error:
        raise DataError(f"{uri}: no AWS credentials were found; set AWS_PROFILE or run under a role") from error
    except ParamValidationError as error:
        raise DataError(f"{uri}: S3 knows no bucket or key of such a name") from error
    except _MISTAKES as error:
        raise DataError(
            f"{uri}: {_sentence(error)}; check AWS_PROFILE, AWS_REGION, the AWS_ keys and ~/.aws"
        ) from error
    except EndpointConnectionError as error:
        raise StorageFault(
            f"{uri}: could not connect to {endpoint()}; check AWS_ENDPOINT_URL and the network"
        ) from error
    except (BotoCoreError, HTTPError, OSError) as error:
        raise StorageFault(f"{uri}: {endpoint()}: {_sentence(error)}") from error
    except ValueError as error:  # what botocore raises for an endpoint that is no URL
        raise DataError(
            f"{uri}: {_sentence(error)}; AWS_ENDPOINT_URL is http(s)://host:port, got {endpoint()}"
        ) from error


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _answered(uri: str, error: ClientError) -> TubeletError:
    """Return our error for one that a store answered."""
    code = _code(error)
    if code in _MISSING:
        return MissingError(f"{uri}: there is no such object at {endpoint()}")
    mistake = _mistake(code, split(uri)[0])
    return (
        DataError(f"{uri}: {mistake}")
        if mistake
        else StorageFault(f"{uri}: {endpoint()} answered {code}: {_sentence(error)}")
    )


def _mistake(code: str, bucket: str) -> str:
    """Say what a person has to mend after an answer; "" if it is nothing of theirs."""
    if code in _REFUSED:
        return (
            f"{endpoint()} refused the credentials ({code}); check AWS_PROFILE or the instance's role, and"
            f" that they may read and list the bucket {bucket}"
        )
    if code in _ELSEWHERE:
        return f"the bucket {bucket} lies in another region ({code}); set AWS_REGION to it"
    return {
        "NoSuchBucket": f"there is no bucket {bucket} at {endpoint()}",
        "InvalidBucketName": f"no bucket may be named {bucket}",
        "InvalidObjectState": "the object is archived; restore it from its storage class before it is read",
        # Of a HEAD, whose answer has no body to give a reason in.
        "400": f"{endpoint()} answered 400 without a reason, as it does to an expired token; renew the credentials,"
        " and check AWS_REGION",
    }.get(code, "")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def get(uri: str, start: int, stop: int | None) -> bytes:
    """Return the bytes [start, stop) of an object, fewer if it ends before."""
    bucket, key = split(uri)
    extra: dict[str, Any] = {}
    if start or stop is not None:
        extra["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    with told(uri):
        for attempt in range(BODY_ATTEMPTS):
            if attempt:
                time.sleep(BODY_PAUSE_S * 2 ** (attempt - 1))
            try:
                body = client().get_object(Bucket=bucket, Key=key, **extra)["Body"]
            except ClientError as error:
                if _code(error) in ("InvalidRange", "416"):
                    return b""  # the object ends before `start`
                raise
            try:
                return body.read()
            except (BotoCoreError, HTTPError, OSError) as error:
                cut: Exception = error
        raise StorageFault(
            f"{uri}: {endpoint()} cut the connection {BODY_ATTEMPTS} times in the middle of the bytes"
            f" ({_sentence(cut)})"
        ) from cut


def size(uri: str) -> int:
    """Return an object's size in bytes."""
    bucket, key = split(uri)
    try:
        with told(uri):
            return int(client().head_object(Bucket=bucket, Key=key)["ContentLength"])
    except MissingError:
        # A HEAD does not say whether it is the object or the bucket that is not there.
        if not _has_bucket(bucket):
            raise DataError(f"{uri}: there is no bucket {bucket} at {endpoint()}") from None
        raise


def _has_bucket(bucket: str) -> bool:
    try:
        client().head_bucket(Bucket=bucket)
    except ClientError as error:
        return _code(error) not in {*_MISSING, "NoSuchBucket"}
    except BotoCoreError:
        return True  # the object was asked for just now, and that answer stands
    return True


def put(uri: str, data: bytes) -> None:
    """Write an object whole."""
    bucket, key = split(uri)
    with told(uri):
        client().put_object(Bucket=bucket, Key=key, Body=data)


def upload(path: Path, uri: str) -> None:
    """Move a local file to an object, in parts if it is large."""
    bucket, key = split(uri)
    with told(uri):
        client().upload_file(str(path), bucket, key)
    path.unlink()


def delete(uri: str) -> None:
    """Delete an object if it is there."""
    bucket, key = split(uri)
    with told(uri):
        client().delete_object(Bucket=bucket, Key=key)


def list_objects(uri: str) -> Iterator[ObjectInfo]:
    """Yield every object under a prefix, in the order of their keys."""
    bucket, key = split(uri)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    with told(uri):
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):
                    yield ObjectInfo(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["ETag"].strip('"'))
