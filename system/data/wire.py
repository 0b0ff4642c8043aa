"""What a decode child and its parent say to each other: a JSON line's worth of plain values, then raw bytes.

No pickle: a child that a hostile video took over must not be able to run code in its parent.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Protocol

_HEADER = struct.Struct("<II")
# More than any message of ours; a larger number means that the other side is not talking sense.
MAX_BYTES = 1 << 31


class Source(Protocol):
    """What messages are read from."""

    def read(self, count: int, /) -> bytes:
        """Return that many bytes, fewer at the end."""


class Target(Protocol):
    """What messages are written to."""

    def write(self, data: bytes, /) -> object:
        """Write all of it."""

    def flush(self) -> None:
        """Hold nothing back."""


def send(pipe: Target, message: dict[str, Any], payload: bytes = b"") -> None:
    """Write one message and its bytes."""
    text = json.dumps(message).encode()
    pipe.write(_HEADER.pack(len(text), len(payload)) + text)
    pipe.write(payload)
    pipe.flush()


def receive(pipe: Source, most_text: int = MAX_BYTES, most_payload: int = MAX_BYTES) -> tuple[dict[str, Any], bytes]:
    """Read one message and its bytes.

    Args:
        pipe: to read from.
        most_text: bytes that the message may have.
        most_payload: bytes that may follow it.

    Raises:
        EOFError: if the other side has gone.
        ValueError: if it says what is no message, or a longer one.
    """
    text_bytes, payload_bytes = _HEADER.unpack(_exactly(pipe, _HEADER.size))
    if text_bytes > most_text or payload_bytes > most_payload:
        raise ValueError(f"a message of {text_bytes} + {payload_bytes} bytes")
    message = json.loads(_exactly(pipe, text_bytes))
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message, _exactly(pipe, payload_bytes)


def _exactly(pipe: Source, count: int) -> bytes:
    data = pipe.read(count)
    if len(data) != count:
        raise EOFError(f"the pipe ended after {len(data)} of {count} bytes")
    return data
