"""An HTTP proxy on this machine that stands before an S3 server and breaks a share of the requests on purpose.

    with FaultProxy("http://127.0.0.1:9000", {"error500": 0.02, "reset": 0.03}, seed=0) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.url

| kind | what the client sees |
|---|---|
| `error500`, `error503` | that answer; half of the time after the request was carried out |
| `reset` | the connection cut: before the request, in the middle of what is sent, or before or in the answer |
| `short` | a body of fewer bytes, whose Content-Length says so too |
| `slow` | a pause of `slow_s` before or in the middle of an answer, or a body that trickles for as long |
| `timeout` | no answer, for as long as the client waits |

Which requests are broken, and how, follows from the seed, the request (method, path, range) and how often it came
before, and not from the order in which threads come. Everything else passes unchanged, the Host header included,
which signatures cover. Bodies are passed on in pieces.
"""

from __future__ import annotations

import random
import re
import select
import threading
from collections import Counter
from collections.abc import Mapping
from http.client import HTTPException
from typing import Self
from urllib.parse import urlsplit

from system.storage.relay import CutError, Relay, Server

KINDS = ("error500", "error503", "reset", "short", "slow", "timeout")
# Pieces of a body that trickles.
TRICKLES = 20
# Seconds between two looks whether a client that gets no answer has gone.
LOOK_S = 0.05


class FaultProxy:
    """A proxy at `url` that passes requests on to a server and injects faults.

    Args:
        upstream: http://host:port of the server.
        faults: kind -> share of the requests, in [0, 1], together at most 1.
        seed: of the draws.
        slow_s: seconds of a pause; longer than the client waits.
    """

    def __init__(self, upstream: str, faults: Mapping[str, float], seed: int, *, slow_s: float = 30.0) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.seed = seed
        self.slow_s = slow_s
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self._injected: Counter[str] = Counter()
        self.inject(faults)
        self._server: Server | None = None

    def inject(self, faults: Mapping[str, float]) -> None:
        """Break these shares of the requests from now on."""
        unknown = sorted(set(faults) - set(KINDS))
        if unknown or sum(faults.values()) > 1 or any(share < 0 for share in faults.values()):
            raise ValueError(f"faults are shares of at most 1 in all of {', '.join(KINDS)}, got {dict(faults)}")
        self._faults = dict(faults)

    @property
    def url(self) -> str:
        """Where clients go instead of the server, once it has started."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def injected(self) -> dict[str, int]:
        """Kind -> requests that were broken so, until now."""
        with self._lock:
            return dict(self._injected)

    @property
    def requests(self) -> int:
        """Requests that came, until now."""
        with self._lock:
            return sum(self._seen.values())

    def start(self) -> Self:
        """Answer requests from now on, in threads of this process."""
        self._server = Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"proxy": self, "upstream": self.upstream}))
        threading.Thread(target=self._server.serve_forever, args=(LOOK_S,), name="fault-proxy", daemon=True).start()
        return self

    def stop(self) -> None:
        """Answer no more requests; those that are held without an answer are let go."""
        self.stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def draw(self, request: str) -> tuple[str, random.Random]:
        """Return what is done to a request, "" for nothing, and the source of its further draws."""
        with self._lock:
            nth = self._seen[request]
            self._seen[request] += 1
        source = random.Random(f"{self.seed}/{request}/{nth}")
        at = source.random()
        for kind, share in self._faults.items():
            at -= share
            if at < 0:
                return kind, source
        return "", source

    def count(self, kind: str) -> None:
        """Note that a request was broken."""
        with self._lock:
            self._injected[kind] += 1


class _Handler(Relay):
    proxy: FaultProxy

    def one(self) -> None:
        """Pass a request on and its answer back, or break one of them."""
        # The name of an upload is drawn by the store.
        what = f"{self.command} {re.sub('uploadId=[^&]*', '', self.path)} {self.headers.get('Range', '')}"
        kind, source = self.proxy.draw(what)
        self.unread = int(self.headers.get("Content-Length") or 0)
        try:
            if self.proxy.stopping.is_set():
                raise CutError
            if kind.startswith("error"):
                self._refuse(kind, source)
            elif kind == "reset":
                self._reset(source)
            elif kind == "timeout":
                self.proxy.count(kind)
                self._wait_until_gone()
            else:
                self._pass_on(kind, source)
        except (CutError, OSError, HTTPException):
            self.cut()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = one  # noqa: N815  http.server's names

    def _refuse(self, kind: str, source: random.Random) -> None:
        self.proxy.count(kind)
        if source.random() < 0.5:
            with self.asked() as answer:
                answer.read()
        else:
            for _ in self.sent():
                pass
        status, word = (500, "InternalError") if kind == "error500" else (503, "SlowDown")
        body = f"<Error><Code>{word}</Code><Message>injected</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self, source: random.Random) -> None:
        self.proxy.count("reset")
        moment = source.choice(("before", "request", "answer", "body"))
        if moment == "request" and self.unread:
            self.asked(stop_at=self.unread // 2)
        elif moment == "answer":
            with self.asked() as answer:
                answer.read()
        elif moment == "body":
            with self.asked() as answer:
                self.begin(answer)
                self.forward(answer, stop_at=(answer.length or 0) // 2)
        raise CutError

    def _pass_on(self, kind: str, source: random.Random) -> None:
        with self.asked() as answer:
            length = answer.length or 0
            if kind == "short" and length and 200 <= answer.status < 300 and self.command != "HEAD":
                self.proxy.count(kind)
                kept = source.randrange(length)
                self.begin(answer, length=kept)
                self.forward(answer, stop_at=kept)
                return
            if kind != "slow":
                self.begin(answer)
                self.forward(answer)
                return
            self.proxy.count(kind)
            manner = source.choice(("before", "middle", "trickle"))
            if manner == "before" or not length:
                self._pause(1.0)
            self.begin(answer)
            if manner == "middle":
                self.forward(answer, stop_at=length // 2)
                self._pause(1.0)
            elif manner == "trickle":
                for _ in range(TRICKLES):
                    self.forward(answer, stop_at=length // 2 // TRICKLES)
                    self._pause(1 / TRICKLES)
            self.forward(answer)

    def _pause(self, share: float) -> None:
        if self.proxy.stopping.wait(self.proxy.slow_s * share):
            raise CutError

    def _wait_until_gone(self) -> None:
        for _ in self.sent():
            pass
        while not self.proxy.stopping.is_set():
            readable, _, _ = select.select([self.connection], [], [], LOOK_S)
            if readable and not self.connection.recv(1):
                break
        raise CutError
