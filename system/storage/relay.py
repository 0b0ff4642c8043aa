"""An HTTP request passed on to another server, in pieces, and its answer passed back: what fault_proxy.py breaks."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE_BYTES = 1 << 16
# Headers that are between two neighbours; Expect is answered here.
_HOPS = {"connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}


class Server(ThreadingHTTPServer):
    """Answers each connection in a thread of its own."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away in the middle of an answer is what this is for."""


class CutError(Exception):
    """The connection ends here, on purpose or because a side has gone."""


class Relay(BaseHTTPRequestHandler):
    """The two halves of a request's way, for a subclass to put together.

    Attributes:
        upstream: host and port of the server.
        unread: bytes of the request's body that the client has not been asked for yet.
    """

    upstream: tuple[str, int]
    unread: int
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each body waits 40 ms for the client to acknowledge the head

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def asked(self, stop_at: int | None = None) -> HTTPResponse:
        """Send the request on and return the answer's head; with `stop_at` cut it after so many bytes of its body."""
        server = HTTPConnection(*self.upstream, timeout=600)
        server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOPS:
                server.putheader(name, value)
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        if chunked:
            server.putheader("Transfer-Encoding", "chunked")
        server.putheader("Connection", "close")
        server.endheaders()
        left = stop_at
        for piece in self.sent():
            part = piece if left is None else piece[:left]
            server.send(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            if left is not None:
                left -= len(part)
                if not left:
                    server.close()
                    raise CutError
        if chunked:
            server.send(b"0\r\n\r\n")
        return server.getresponse()

    def sent(self) -> Iterator[bytes]:
        """Yield the pieces of the request's body."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            yield from self._chunks()
            return
        while self.unread:
            piece = self.rfile.read1(min(self.unread, PIECE_BYTES))
            if not piece:
                raise CutError
            self.unread -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0] or b"0", 16):
            while size:
                piece = self.rfile.read(min(size, PIECE_BYTES))
                if not piece:
                    raise CutError
                size -= len(piece)
                yield piece
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass

    def begin(self, answer: HTTPResponse, length: int | None = None) -> None:
        """Send an answer's head."""
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOPS and not (length is not None and name.lower() == "content-length"):
                self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        elif not answer.getheader("Content-Length") and self.command != "HEAD" and answer.status not in (204, 304):
            # The end of the body is the end of the connection.
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

    def forward(self, answer: HTTPResponse, stop_at: int | None = None) -> None:
        """Send an answer's body on, or the next `stop_at` bytes of it."""
        left = stop_at
        while left is None or left:
            piece = answer.read1(PIECE_BYTES if left is None else min(left, PIECE_BYTES))
            if not piece:
                break
            self.wfile.write(piece)
            left = None if left is None else left - len(piece)
        self.wfile.flush()

    def cut(self) -> None:
        """End the connection with a reset, so that the client does not take it for the end of an answer."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            self.connection.close()
