from __future__ import annotations

import os
import threading

import pytest

from system.data.wire import receive, send


def test_messages_are_plain_values_and_bytes() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as source, os.fdopen(write, "wb") as target:
        sender = threading.Thread(target=send, args=(target, {"a": [1, "b"]}, b"payload"))
        sender.start()
        assert receive(source) == ({"a": [1, "b"]}, b"payload")
        sender.join()


def test_a_pipe_that_ends_or_talks_nonsense_is_the_end() -> None:
    ends: list[tuple[bytes, type[Exception]]] = [(b"", EOFError), (b"\x05\x00", EOFError), (b"\xff" * 8, ValueError)]
    for data, error in ends:
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        with os.fdopen(read, "rb") as source, pytest.raises(error):
            receive(source)
