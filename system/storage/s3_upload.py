"""Files of any size to S3: in one request, or in parts that are each sent again alone."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from system.errors import StorageFault
from system.storage import local
from system.storage.errors import MissingError
from system.storage.s3 import asked, client, head, md5, put
from system.storage.s3_errors import ShortError, code_of, split

# Files over this size go up in parts of it, or of a 9000th where that is more: S3 takes 10,000 parts.
PART_BYTES = 16 << 20
MOST_PARTS = 9000
# Parts of one file in flight, each of them in memory.
PART_THREADS = 4


def upload(path: Path, uri: str) -> None:
    """Move a local file to an object, in parts if it is large."""
    with local.told(str(path)):
        num_bytes = path.stat().st_size
        data = path.read_bytes() if num_bytes <= PART_BYTES else None
    if data is None:
        _upload_parts(path, uri, num_bytes)
    else:
        put(uri, data)
    path.unlink()


def _upload_parts(path: Path, uri: str, num_bytes: int) -> None:
    bucket, key = split(uri)
    name = uuid.uuid4().hex  # by which the finished object is known to be this one
    where: Any = {"Bucket": bucket, "Key": key}

    def begin(_: int) -> str:
        answer: Any = client().create_multipart_upload(**where, Metadata={"upload": name})
        if "UploadId" not in answer:
            raise ShortError("began an upload without a name")
        return str(answer["UploadId"])

    where["UploadId"] = asked(uri, begin)
    try:
        _send_parts(path, uri, num_bytes, where)
    except BaseException:
        # Once only: the store has just spent a budget.
        with suppress(ClientError, BotoCoreError, HTTPError, OSError):
            client().abort_multipart_upload(**where)
        raise
    try:
        there = head(uri)
    except MissingError as error:
        raise StorageFault(f"{uri}: {num_bytes} bytes were uploaded, and nothing is there") from error
    if there["ContentLength"] != num_bytes or there["Metadata"].get("upload") != name:
        raise StorageFault(f"{uri}: {num_bytes} bytes were uploaded, {there['ContentLength']} others are there")


def _send_parts(path: Path, uri: str, num_bytes: int, where: Any) -> None:
    """Send a file's parts and join them."""
    part_bytes = max(PART_BYTES, -(-num_bytes // MOST_PARTS))

    def send(number: int) -> dict[str, Any]:
        with local.told(str(path)), path.open("rb") as file:
            file.seek((number - 1) * part_bytes)
            data = file.read(part_bytes)
        part: dict[str, Any] = {"PartNumber": number, "Body": data, "ContentMD5": md5(data)}
        answer = asked(uri, lambda _: client().upload_part(**where, **part))
        return {"PartNumber": number, "ETag": answer["ETag"]}

    pool = ThreadPoolExecutor(PART_THREADS)
    try:
        parts: list[Any] = list(pool.map(send, range(1, -(-num_bytes // part_bytes) + 1)))
    finally:
        pool.shutdown(cancel_futures=True)

    def join(failed: int) -> None:
        try:
            client().complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
        except ClientError as error:
            # After a try whose answer was lost the upload may be there, and no longer under way: the caller looks.
            if not failed or code_of(error) != "NoSuchUpload":
                raise

    asked(uri, join)
