"""What a store may answer, spoken by a small server whose answers each test sets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from system import storage
from system.errors import DataError, StorageFault
from system.storage import retry, s3

# Servers, retries, and a client for each test: seconds together.
pytestmark = pytest.mark.slow


@dataclass
class Store:
    """Objects by path, and what goes wrong: answers by method that come first."""

    objects: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    cuts: int = 0
    requests: list[str] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    store: ClassVar[Store]
    protocol_version = "HTTP/1.1"  # with the 1.0 that is the default, boto3 waits a second before each body

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", length: int | None = None, range_: str = "") -> None:
        self.send_response(status)
        if range_:
            self.send_header("Content-Range", range_)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

    def handle_one(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.store.requests.append(f"{self.command} {self.path}")
        self.store.regions.append(self.headers.get("Authorization", "").partition("Credential=")[2].split("/")[2:3][0])
        data = self.store.objects.get(self.path)
        if self.command in self.store.errors:
            self.refuse(*self.store.errors[self.command])
        elif self.command == "HEAD" and self.path == "/bucket":
            self.answer(200)
        elif data is None:
            self.refuse(404, "NoSuchKey" if self.path.startswith("/bucket/") else "NoSuchBucket")
        else:
            self.part(data)

    def part(self, data: bytes) -> None:
        start, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        if int(start) >= len(data):
            self.refuse(416, "InvalidRange")
            return
        wanted = data[int(start) : int(last) + 1 if last else len(data)]
        sent = f"bytes {start}-{int(start) + len(wanted) - 1}/{len(data)}" if "Range" in self.headers else ""
        if self.command == "GET" and self.store.cuts:
            self.store.cuts -= 1
            self.answer(206, wanted[: len(wanted) // 2], len(wanted), range_=sent)
            self.close_connection = True
        else:
            self.answer(206 if sent else 200, wanted, range_=sent)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815  http.server's names


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    made = Store({"/bucket/a": b"0123456789"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"store": made}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_CONFIG_FILE", str(tmp_path / "config")),
        ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials")),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between tries
    s3._client.cache_clear()
    yield made
    s3._client.cache_clear()
    server.shutdown()
    server.server_close()


def test_objects_are_read_whole_and_in_parts(store: Store) -> None:
    assert storage.read("s3://bucket/a") == b"0123456789"
    assert storage.read("s3://bucket/a", 2, 5) == b"234"
    assert storage.read("s3://bucket/a", 10) == b""
    assert storage.size("s3://bucket/a") == 10


def test_a_connection_that_is_cut_in_the_middle_of_the_bytes_is_tried_again(store: Store) -> None:
    store.cuts = retry.TRIES - 1
    assert storage.read("s3://bucket/a", 1, 9) == b"12345678"
    store.cuts = retry.TRIES
    with pytest.raises(StorageFault, match=r"s3://bucket/a: http://127.0.0.1:\d+.*given up after 10 tries"):
        storage.read("s3://bucket/a", 1, 9)


@pytest.mark.parametrize("start", [5, 10, 12])
def test_an_object_that_was_replaced_by_a_shorter_one_is_told(store: Store, start: int) -> None:
    with pytest.raises(storage.MissingError, match="the object is 10 bytes, at least 20 are expected: it was replaced"):
        storage.read("s3://bucket/a", start, 20)


def test_a_missing_object_and_a_missing_bucket_are_not_the_same(store: Store) -> None:
    operations: list[Callable[[str], object]] = [storage.read, storage.size]
    for operation in operations:
        with pytest.raises(storage.MissingError, match="there is no such object"):
            operation("s3://bucket/none")
        with pytest.raises(DataError, match="there is no bucket nowhere at http") as caught:
            operation("s3://nowhere/none")
        assert not isinstance(caught.value, storage.MissingError)
    assert not storage.exists("s3://bucket/none")


def test_to_delete_what_is_not_there_is_no_error_where_the_store_says_so(store: Store) -> None:
    storage.delete(["s3://bucket/none"])
    assert store.requests == ["DELETE /bucket/none"]
    with pytest.raises(DataError, match="there is no bucket nowhere"):
        storage.delete(["s3://nowhere/none"])


@pytest.mark.parametrize("uri", ["s3://No Bucket!/a", "s3://bucket/", "s3:///a"])
def test_a_name_that_no_object_can_have_is_told(store: Store, uri: str) -> None:
    with pytest.raises(DataError, match=r"no bucket or key of such a name|got no bucket"):
        storage.read(uri)


@pytest.mark.parametrize(
    ("method", "status", "code", "said"),
    [
        ("GET", 403, "AccessDenied", r"refused the credentials \(AccessDenied\); check AWS_PROFILE"),
        ("GET", 400, "ExpiredToken", "refused the credentials"),
        ("HEAD", 403, "", r"refused the credentials \(403\)"),
        ("HEAD", 400, "", "answered 400 without a reason, as it does to an expired token; renew"),
        ("GET", 403, "InvalidObjectState", "the object is archived; restore it"),
        ("GET", 400, "AuthorizationHeaderMalformed", "lies in another region .*set AWS_REGION"),
    ],
)
def test_what_a_person_can_mend_is_no_fault(store: Store, method: str, status: int, code: str, said: str) -> None:
    store.errors[method] = (status, code)
    with pytest.raises(DataError, match=said) as caught:
        storage.read("s3://bucket/a") if method == "GET" else storage.size("s3://bucket/a")
    assert not isinstance(caught.value, storage.MissingError)


def test_a_store_that_is_down_is_a_fault(store: Store) -> None:
    store.errors["GET"] = (500, "InternalError")
    with pytest.raises(StorageFault, match="answered InternalError"):
        storage.read("s3://bucket/a")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_PROFILE", "nobody", r"profile \(nobody\) could not be found; check AWS_PROFILE"),
        ("AWS_ENDPOINT_URL", "minio:9000", "Invalid endpoint: minio:9000; AWS_ENDPOINT_URL is http"),
        ("AWS_SECRET_ACCESS_KEY", "", "Partial credentials found"),
        ("AWS_REGION", "eu west 1", "check AWS_PROFILE, AWS_REGION"),
    ],
)
def test_settings_that_no_client_can_be_made_from_are_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    if value:
        monkeypatch.setenv(variable, value)
    else:
        monkeypatch.delenv(variable)
    for operation in (lambda: storage.read("s3://bucket/a"), lambda: list(storage.list_objects("s3://bucket"))):
        with pytest.raises(DataError, match=said):
            operation()
    assert not store.requests


def test_a_refused_upload_is_told_by_its_cause(store: Store, tmp_path: Path) -> None:
    store.errors["PUT"] = (403, "AccessDenied")
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(DataError, match=r"s3://bucket/f: .* refused the credentials"):
        storage.upload(tmp_path / "f", "s3://bucket/f")
    assert (tmp_path / "f").exists()
    store.errors["PUT"] = (500, "InternalError")
    with pytest.raises(StorageFault, match="answered InternalError"):
        storage.upload(tmp_path / "f", "s3://bucket/f")


@pytest.mark.parametrize(("variable", "other"), [("AWS_REGION", "AWS_DEFAULT_REGION"), ("AWS_DEFAULT_REGION", "")])
def test_both_names_of_the_region_are_read(
    store: Store, monkeypatch: pytest.MonkeyPatch, variable: str, other: str
) -> None:
    if other:
        monkeypatch.setenv(other, "us-west-1")
    monkeypatch.setenv(variable, "eu-north-1")
    storage.read("s3://bucket/a")
    assert store.regions == ["eu-north-1"]


def test_threads_share_one_client(store: Store) -> None:
    clients = storage.in_parallel([s3.client] * 16)
    assert len({id(each) for each in clients}) == 1
