"""The process in which videos are opened: `python -m system.data.child FD CAPACITY MEMORY_MB CPU_S`.

It reads requests from standard input and answers on standard output; frames go into shared memory (the file descriptor
FD). It has no credentials, may not grow beyond its memory limit nor use more CPU time than a job has, can write no more
than its error messages, and dies with its parent. What goes wrong with one video is an answer; what kills the process
is the parent's to notice.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import sys
import threading
import time
from math import ceil, prod
from typing import IO, Any

import numpy as np

from system.data.augment import crop_from
from system.data.containers import Seek
from system.data.decode import ClipRequest
from system.data.decoders import decode_clip
from system.data.probe import probe_video
from system.data.supplied import SuppliedFile
from system.data.transcode import transcode
from system.data.vectors import VectorCollector
from system.data.wire import receive, send
from system.errors import DecodeError, RecipeError

# The largest file that a child may write: what it says on standard error.
ERRORS_BYTES = 1 << 20


def request_from(values: dict[str, Any]) -> ClipRequest:
    """Build a request from the plain values of a message."""
    return ClipRequest(
        tuple(values["frames"]),
        tuple(crop_from(crop) for crop in values["crops"]),
        values["size"],
        values["decoder"],
        Seek(*values["seek"]) if values["seek"] else None,
        values["layers"],
        tuple((start, end) for start, end in values["pairs"]),
        tuple(values["size_px"]) if values["size_px"] else None,
    )


class _Child:
    def __init__(self, source: IO[bytes], target: IO[bytes], shared: mmap.mmap) -> None:
        self._source, self._target, self._shared = source, target, shared

    def _fetch(self, start: int, stop: int) -> bytes:
        """Ask the parent for bytes that it did not supply."""
        send(self._target, {"need": [start, stop]})
        return receive(self._source)[1]

    def _answer(self, message: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        at, segments = 0, []
        for start, length in message["segments"]:
            segments.append((start, payload[at : at + length]))
            at += length
        file = SuppliedFile(message["size"], segments, self._fetch)
        if message["op"] == "probe":
            return {"facts": probe_video(file).as_dict()}, b""
        if message["op"] == "transcode":
            return {"ok": True}, transcode(file, **message["options"])
        request = request_from(message["request"])
        vectors = VectorCollector(request) if request.pairs else None
        into = np.frombuffer(self._shared, np.uint8, prod(request.shape()), message["offset"]).reshape(request.shape())
        frames, decoder = decode_clip(file, request, vectors, into)
        if not np.may_share_memory(frames, into):
            into[:] = frames
        flow = vectors.flow() if vectors is not None else None
        return {"decoder": decoder, "shape": frames.shape}, b"" if flow is None else flow.tobytes()

    def serve(self) -> None:
        """Answer until the parent closes the pipe."""
        while True:
            try:
                message, payload = receive(self._source)
            except EOFError:
                return
            data = b""
            _limit_cpu(message["cpu_s"])
            try:
                answer, data = self._answer(message, payload)
            except DecodeError as error:
                answer = {"error": error.code, "reason": error.reason}
            except RecipeError:  # the decoder that is named cannot be loaded; the parent tries for itself
                answer = {"not_loaded": True}
            except MemoryError:
                answer = {"error": "memory", "reason": "needs more memory than a decode child may have"}
            answer["rss_mb"] = _resident_mb()
            send(self._target, answer, data)


def _limit_cpu(more_s: float) -> None:
    """Let the process use so much more CPU time, rounded up to a whole second of its life; SIGXCPU ends it then."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, life = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (min(ceil(used.ru_utime + used.ru_stime + more_s), life), life))


def _resident_mb() -> float:
    with open("/proc/self/statm") as file:  # noqa: PTH123  twice as fast, once a video
        return int(file.read().split()[1]) * mmap.PAGESIZE / 2**20


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Run the child."""
    descriptor, capacity, memory_mb, cpu_s = (int(text) for text in sys.argv[1:5])
    faulthandler.enable()
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    shared = mmap.mmap(descriptor, capacity)
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up between our messages
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (ERRORS_BYTES, ERRORS_BYTES))
    _Child(source, target, shared).serve()


if __name__ == "__main__":
    main()
