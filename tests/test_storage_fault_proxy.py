"""The proxy itself, before a server that notes what reaches it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from system.storage.fault_proxy import FaultProxy


@dataclass
class Noted:
    """Requests as they came: method and path, headers, body."""

    url: str = ""
    lines: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of those who go away in the middle of an answer."""


class Handler(BaseHTTPRequestHandler):
    noted: ClassVar[Noted]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.noted.lines.append(f"{self.command} {self.path}")
        self.noted.headers.append(dict(self.headers.items()))
        self.noted.bodies.append(body)
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"0123456789")

    do_GET = do_HEAD = do_PUT = one  # noqa: N815  http.server's names


@pytest.fixture
def server() -> Iterator[Noted]:
    noted = Noted()
    made = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"noted": noted}))
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    noted.url = f"http://127.0.0.1:{made.server_port}"
    yield noted
    made.shutdown()
    made.server_close()


def to(proxy: FaultProxy) -> HTTPConnection:
    return HTTPConnection(proxy.url.removeprefix("http://"), timeout=20)


def test_requests_pass_with_the_host_that_was_signed_and_with_bodies_of_both_kinds(server: Noted) -> None:
    with FaultProxy(server.url, {}, seed=0) as proxy:
        connection = to(proxy)
        for body, chunked in ((b"whole" * 50_000, False), (iter([b"in ", b"chunks"]), True), (b"", False)):
            signed = {"Host": "store.example:9000", "Authorization": "AWS4-HMAC-SHA256 x"}
            connection.request("PUT", "/bucket/a%20b?partNumber=1&x=", body, signed, encode_chunked=chunked)
            assert connection.getresponse().read() == b"0123456789"
        connection.request("HEAD", "/bucket/a")
        answer = connection.getresponse()
        assert (answer.read(), answer.getheader("Content-Length")) == (b"", "10")
    assert server.lines == ["PUT /bucket/a%20b?partNumber=1&x="] * 3 + ["HEAD /bucket/a"]
    assert server.bodies == [b"whole" * 50_000, b"in chunks", b"", b""]
    assert [headers["Host"] for headers in server.headers[:3]] == ["store.example:9000"] * 3
    assert server.headers[0]["Authorization"] == "AWS4-HMAC-SHA256 x"
    assert proxy.injected == {}
    assert proxy.requests == 4


def test_a_short_answer_agrees_with_its_own_length(server: Noted) -> None:
    with FaultProxy(server.url, {"short": 1.0}, seed=0) as proxy:
        connection = to(proxy)
        connection.request("GET", "/bucket/a")
        answer = connection.getresponse()
        length = int(answer.headers["Content-Length"])
        assert answer.read() == b"0123456789"[:length]
        assert length < 10
        connection.request("HEAD", "/bucket/a")
        answer = connection.getresponse()
        answer.read()
        assert answer.getheader("Content-Length") == "10"
    assert proxy.injected == {"short": 1}


def test_a_reset_may_come_before_and_after_the_request_was_carried_out(server: Noted) -> None:
    with FaultProxy(server.url, {"reset": 1.0}, seed=0) as proxy:
        for number in range(20):
            connection = to(proxy)
            with pytest.raises((ConnectionError, IncompleteRead)):  # while it sends, or while it waits
                connection.request("PUT", f"/bucket/{number}", b"body")
                connection.getresponse().read()
    assert proxy.injected == {"reset": 20}
    whole = [body for body in server.bodies if body == b"body"]
    assert 3 < len(whole) < 17


def test_who_waits_for_an_answer_that_never_comes_is_let_go_at_the_stop(server: Noted) -> None:
    proxy = FaultProxy(server.url, {"timeout": 1.0}, seed=0).start()
    connection = to(proxy)
    connection.request("GET", "/bucket/a")
    while not proxy.injected:
        threading.Event().wait(0.01)
    proxy.stop()
    with pytest.raises(ConnectionError):
        connection.getresponse()
    assert server.lines == []


def test_the_same_seed_breaks_the_same_requests_in_any_order() -> None:
    requests = [f"GET /a/{number} " for number in range(200)]
    one, other = (FaultProxy("http://127.0.0.1:9", {"reset": 0.3, "slow": 0.2}, seed=3) for _ in range(2))
    kinds = {request: one.draw(request)[0] for request in requests}
    assert kinds == {request: other.draw(request)[0] for request in reversed(requests)}
    assert 30 < sum(kind == "reset" for kind in kinds.values()) < 90


def test_faults_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="error500, error503, reset, short, slow, timeout, got"):
        FaultProxy("http://127.0.0.1:9", {"fire": 0.1}, seed=0)
