"""What a decode child and its parent say to each other: a JSON line's worth of plain values, then raw bytes.

No pickle: a child that a hostile video took over must not be able to run code in its parent.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

_HEADER = struct.Struct("<II")
# More than any message of ours; a larger number means that the other side is not talking sense.
MAX_BYTES = 1 << 31


def send(pipe: IO[bytes], message: dict[str, Any], payload: bytes = b"") -> None:
    """Write one message and its bytes."""
    text = json.dumps(message).encode()
    pipe.write(_HEADER.pack(len(text), len(payload)))
    pipe.write(text)
    pipe.write(payload)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read one message and its bytes.

    Raises:
        EOFError: if the other side has gone, or says what is no message.
    """
    text_bytes, payload_bytes = _HEADER.unpack(_exactly(pipe, _HEADER.size))
    if text_bytes + payload_bytes > MAX_BYTES:
        raise EOFError(f"a message of {text_bytes} + {payload_bytes} bytes")
    message = json.loads(_exactly(pipe, text_bytes))
    if not isinstance(message, dict):
        raise EOFError("a message that is no object")
    return message, _exactly(pipe, payload_bytes)


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) != count:
        raise EOFError(f"the pipe ended after {len(data)} of {count} bytes")
    return data
