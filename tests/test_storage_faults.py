"""Storage through a proxy that breaks requests: the right bytes all the same, or a fault that says what was tried."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from system import storage
from system.errors import DataError, StorageFault
from system.storage import retry, s3, s3_upload
from system.storage.fault_proxy import KINDS, FaultProxy

DATA = bytes(range(256)) * 400
BUCKET = "s3://runs-and-videos"


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultProxy]:
    """A store behind a proxy, with the waits of this process made short."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "key")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setattr(s3, "READ_TIMEOUT_S", 0.5)
        patch.setattr(s3, "SLOWEST_BYTES_PER_S", 1e8)
        patch.setattr(retry, "FIRST_PAUSE_S", 0.001)
        with FaultProxy(f"http://{host}:{port}", {}, seed=7, slow_s=1.5) as made:
            patch.setenv("AWS_ENDPOINT_URL", made.url)
            s3._client.cache_clear()
            s3.client().create_bucket(Bucket=BUCKET.removeprefix("s3://"))
            storage.write(f"{BUCKET}/fixed", DATA)
            yield made
            made.inject({})
        s3._client.cache_clear()
    server.stop()


@contextmanager
def injecting(proxy: FaultProxy, **faults: float) -> Iterator[None]:
    """Break requests, and see that some of each kind were broken."""
    before = proxy.injected
    proxy.inject(faults)
    try:
        yield
    finally:
        proxy.inject({})
    assert all(proxy.injected.get(kind, 0) > before.get(kind, 0) for kind in faults), proxy.injected


# Of the kinds that cost a time-out each, fewer.
SHARES = {kind: 0.2 if kind in ("slow", "timeout") else 0.4 for kind in KINDS}
QUICK = ("error503", "reset", "short")
ALL = [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind not in QUICK)]


@pytest.mark.parametrize("kind", ALL)
def test_each_kind_of_fault_is_outlasted(proxy: FaultProxy, kind: str) -> None:
    places = [f"{BUCKET}/{kind}/{number}" for number in range(12)]
    with injecting(proxy, **{kind: SHARES[kind]}):
        storage.in_parallel([lambda u=uri: storage.write(u, u.encode() * 50) for uri in places])  # type: ignore[misc]
        assert storage.in_parallel([lambda u=uri: storage.read(u) for uri in places]) == [  # type: ignore[misc]
            uri.encode() * 50 for uri in places
        ]
        assert storage.read(f"{BUCKET}/fixed", 1000, 90_000) == DATA[1000:90_000]
        assert storage.read(f"{BUCKET}/fixed", 99_999) == DATA[99_999:]
        assert storage.size(f"{BUCKET}/fixed") == len(DATA)
        assert [item.uri for item in storage.list_objects(f"{BUCKET}/{kind}")] == sorted(places)
        storage.delete(places[:3])
    assert [item.uri for item in storage.list_objects(f"{BUCKET}/{kind}")] == sorted(places[3:])


def test_a_large_file_goes_up_in_parts_that_are_each_sent_again(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.setattr(s3_upload, "PART_BYTES", 50_000)
    data = os.urandom(220_000)
    with injecting(proxy, reset=0.3, error500=0.2):
        for number in range(3):
            (tmp_path / "large").write_bytes(data)
            storage.upload(tmp_path / "large", f"{BUCKET}/large/{number}")
            assert not (tmp_path / "large").exists()
    whole = hashlib.sha256(data).digest()
    assert all(hashlib.sha256(storage.read(f"{BUCKET}/large/{n}")).digest() == whole for n in range(3))


def test_an_upload_that_fails_leaves_its_file_and_no_object(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", 1 << 10)
    monkeypatch.setenv(retry.TRIES_VARIABLE, "2")
    (tmp_path / "f").write_bytes(DATA)
    with injecting(proxy, error503=1.0), pytest.raises(StorageFault, match=f"{BUCKET}/f: .*SlowDown.*after 2 tries"):
        storage.upload(tmp_path / "f", f"{BUCKET}/f")
    assert (tmp_path / "f").exists()
    assert not storage.exists(f"{BUCKET}/f")


@pytest.mark.parametrize("kind", ALL)
def test_a_fault_that_lasts_is_told_with_the_uri_and_the_tries(
    proxy: FaultProxy, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(retry.TRIES_VARIABLE, "3")
    said = rf"^{BUCKET}/fixed: {proxy.url}.*\(given up after 3 tries in \d+\.\d s\)$"
    with injecting(proxy, **{kind: 1.0}), pytest.raises(StorageFault, match=said):
        storage.read(f"{BUCKET}/fixed")


def test_a_store_that_is_away_is_given_up_when_the_seconds_are_spent(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(retry.SECONDS_VARIABLE, "0")
    with injecting(proxy, reset=1.0), pytest.raises(StorageFault, match="given up after 1 tries"):
        storage.write(f"{BUCKET}/away", b"")


def test_what_a_person_has_to_mend_is_asked_once(proxy: FaultProxy) -> None:
    before = proxy.requests
    with pytest.raises(DataError, match="there is no bucket not-there"):
        storage.read("s3://not-there/a")
    assert proxy.requests == before + 1


def test_a_created_object_is_not_written_over(proxy: FaultProxy) -> None:
    assert storage.create(f"{BUCKET}/created", b"first")
    assert not storage.create(f"{BUCKET}/created", b"second")
    assert storage.read(f"{BUCKET}/created") == b"first"
    assert storage.enforces_create(f"{BUCKET}/folder")
    assert list(storage.list_objects(f"{BUCKET}/folder")) == []


@pytest.mark.slow
def test_a_create_whose_answer_is_lost_is_known_as_our_own(proxy: FaultProxy) -> None:
    with injecting(proxy, error500=0.3, reset=0.1):
        assert all(storage.create(f"{BUCKET}/lost/{number}", f"{number}".encode()) for number in range(20))
        assert not any(storage.create(f"{BUCKET}/lost/{number}", b"other") for number in range(20))


def test_of_many_that_create_at_once_one_succeeds_whatever_breaks(proxy: FaultProxy) -> None:
    with injecting(proxy, error503=0.2, reset=0.2):
        for number in range(4):
            uri = f"{BUCKET}/contest/{number}"
            tasks = [lambda n=n, u=uri: storage.create(u, f"{n}".encode()) for n in range(6)]
            won = storage.in_parallel(tasks)
            assert sum(won) == 1
            assert storage.read(uri) == f"{won.index(True)}".encode()


def test_many_large_bodies_pass_the_proxy_at_once(proxy: FaultProxy) -> None:
    data = os.urandom(4 << 20)

    def returns(uri: str) -> bool:
        storage.write(uri, data)
        return storage.read(uri) == data

    assert all(storage.in_parallel([lambda n=n: returns(f"{BUCKET}/many/{n}") for n in range(16)]))  # type: ignore[misc]


def test_the_same_seed_breaks_the_same_requests_in_any_order() -> None:
    requests = [f"GET /a/{number} " for number in range(200)]
    one, other = (FaultProxy("http://127.0.0.1:9", {"reset": 0.3, "slow": 0.2}, seed=3) for _ in range(2))
    kinds = {request: one.draw(request)[0] for request in requests}
    assert kinds == {request: other.draw(request)[0] for request in reversed(requests)}
    assert 30 < sum(kind == "reset" for kind in kinds.values()) < 90


def test_faults_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="error500, error503, reset, short, slow, timeout, got"):
        FaultProxy("http://127.0.0.1:9", {"fire": 0.1}, seed=0)
