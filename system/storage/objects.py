"""What is said of objects without a word to a store: importing this needs no boto3."""

from __future__ import annotations

import os
from dataclasses import dataclass

from system.secret_words import without_user


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    uri: str
    size: int
    etag: str


def endpoint() -> str:
    """Return the S3 endpoint that is spoken to, for messages."""
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return without_user(given) if given else "AWS's own endpoint"
