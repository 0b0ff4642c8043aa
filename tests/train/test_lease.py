"""Leases of runs, with intervals of a tenth of a second, on local files; S3 is marked slow."""

from __future__ import annotations

import logging
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from system import storage
from system.errors import LeaseError, StorageFault
from system.storage import s3
from system.train.claims import HELD, RELEASED, Claim, Process
from system.train.holder import lives, this_process
from system.train.lease import Fence, Lease, Times, newest_claim
from tests.conftest import REPOSITORY

FAST = Times(renew_s=0.05, expires_s=0.3, longest_s=2.0, poll_s=0.02, settle_s=0.05, leave_s=2.0)
# Of a lease that is held and not renewed while a test looks.
STILL = replace(FAST, renew_s=60.0)
# Of a job that watches one that renews, on a machine where a thread may have to wait.
PATIENT = replace(FAST, expires_s=20.0, longest_s=30.0)
FAR = Process("bob", "far", "boot", "pid:[2]", 5, "1", "raysubmit_7")


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(tmp_path / "run")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3._client.cache_clear()
    s3.client().create_bucket(Bucket="runs")
    yield "s3://runs"
    s3._client.cache_clear()
    server.stop()


def held_by(run: str, holder: Process, generation: int = 3) -> Claim:
    """Let somebody else hold the run."""
    claim = Claim(generation, "another", holder, 0, HELD, 0.0)
    storage.write(f"{run}/lease/{generation:08d}.json", claim.as_bytes())
    return claim


def names(run: str) -> list[str]:
    return [item.uri.rpartition("/")[2] for item in storage.list_objects(f"{run}/lease")]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def beat(run: str) -> int:
    claim = newest_claim(run)
    assert claim is not None
    return claim.beat


def test_a_free_run_is_taken_renewed_and_released(run: str) -> None:
    said: list[str] = []
    with Lease.acquire(run, said.append, times=FAST) as lease:
        assert lease.generation == 1
        until(lambda: beat(run) >= 2)
        assert lease.lost is None
    claim = newest_claim(run)
    assert claim is not None
    assert (claim.state, claim.holder) == (RELEASED, this_process())
    with Lease.acquire(run, said.append, times=FAST) as second:
        assert second.generation == 2
    assert said == []


def test_a_second_job_is_refused_with_the_holders_name(run: str) -> None:
    with (
        Lease.acquire(run, print, times=FAST),
        pytest.raises(LeaseError, match="another job trains this run: ") as told,
    ):
        Lease.acquire(run, print, times=PATIENT)
    assert str(this_process()) in str(told.value)
    assert told.value.exit_code == 2


def test_a_claim_of_a_far_machine_that_is_not_renewed_is_taken_over_and_said(run: str) -> None:
    held_by(run, FAR)
    said: list[str] = []
    with Lease.acquire(run, said.append, times=STILL) as lease:
        assert lease.generation == 4
    assert said[0] == "the run is held by bob@far:5 (job raysubmit_7): watching for 0.3 s whether it is renewed"
    assert said[1].startswith("the run was held by bob@far:5 (job raysubmit_7), not renewed for ")


def test_a_killed_holder_of_this_machine_is_followed_at_once(run: str) -> None:
    code = (
        "import sys, time\n"
        "from system.train.lease import Lease\n"
        "Lease.acquire(sys.argv[1], print)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, run], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    child.send_signal(signal.SIGKILL)
    # A zombie until it is waited for: it has a number, and no longer lives.
    until(lambda: not lives(newest_claim(run).holder))  # type: ignore[union-attr]
    said: list[str] = []
    with Lease.acquire(run, said.append) as lease:
        assert lease.generation == 2
    assert len(said) == 1
    assert f":{child.pid}, which no longer lives" in said[0]
    child.wait()


def test_a_number_that_was_given_again_is_not_the_holder() -> None:
    me = this_process()
    assert lives(me)
    assert not lives(replace(me, started="1"))


def test_takeover_takes_it_at_once_and_the_holder_finds_out(run: str) -> None:
    said: list[str] = []
    first = Lease.acquire(run, said.append, times=FAST)
    with Lease.acquire(run, said.append, takeover=True, times=FAST) as second:
        assert second.generation == 2
        assert "taken over from" in said[0]
        until(lambda: first.lost is not None)
        assert first.lost is not None
        assert "claim 2 by " in first.lost
        with pytest.raises(LeaseError, match="is no longer the newest"):
            first.next_generation()
        first.release()
        assert second.lost is None
    claim = newest_claim(run)
    assert claim is not None
    assert claim.generation == 2


def test_the_fence_of_a_zombie_refuses_and_names_the_new_holder(run: str) -> None:
    with Lease.acquire(run, print, times=STILL) as lease:
        fence = pickle.loads(pickle.dumps(Fence(run, lease.generation)))
        fence.check()
        held_by(run, FAR, generation=2)
        with pytest.raises(LeaseError, match=r"claim 1, under which .* claim 2 by bob@far:5 \(job raysubmit_7\) is"):
            fence.check()
    Fence(run, 2).check()


def test_each_attempt_has_a_generation_and_old_claims_are_deleted(run: str) -> None:
    with Lease.acquire(run, print, times=FAST) as lease:
        before = Fence(run, lease.generation)
        assert [lease.next_generation() for _ in range(3)] == [2, 3, 4]
        assert names(run) == ["00000003.json", "00000004.json"]
        with pytest.raises(LeaseError, match=r"claim 1, .* claim 4 by"):
            before.check()
        Fence(run, lease.generation).check()
        until(lambda: beat(run) >= 1)
        assert lease.lost is None


def test_a_generation_whose_claim_broke_off_does_not_lose_the_lease(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = storage.create

    def written_and_lost(uri: str, data: bytes) -> bool:
        honest(uri, data)
        raise StorageFault(f"{uri}: away")

    with Lease.acquire(run, print, times=FAST) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(storage, "create", written_and_lost)
            with pytest.raises(StorageFault):
                lease.next_generation()
        assert lease.next_generation() == 3
        until(lambda: beat(run) >= 1)
        assert lease.lost is None


def test_renewing_goes_on_when_storage_was_away(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def away(uri: str, data: bytes) -> None:
        failed.set()
        raise StorageFault(f"{uri}: away")

    with Lease.acquire(run, print, times=FAST) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(storage, "write", away)
            assert failed.wait(20)
        seen = beat(run)
        until(lambda: beat(run) > seen)
        assert lease.lost is None


def race(run: str) -> tuple[list[Lease], list[LeaseError]]:
    """Let six jobs want a run at once."""
    won: list[Lease] = []
    refused: list[LeaseError] = []
    start = threading.Barrier(6)

    def want() -> None:
        start.wait()
        try:
            won.append(Lease.acquire(run, lambda _: None, times=FAST))
        except LeaseError as error:
            refused.append(error)

    threads = [threading.Thread(target=want) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won, refused


def test_of_jobs_that_want_a_run_at_once_one_gets_it(run: str) -> None:
    held_by(run, FAR)  # who does not renew: all watch, and all take over at the same moment
    won, refused = race(run)
    for lease in won:
        lease.release()
    assert (len(won), len(refused)) == (1, 5)
    assert won[0].generation == 4


@pytest.mark.slow
def test_of_jobs_that_want_a_run_in_a_bucket_at_once_one_gets_it(bucket: str) -> None:
    for number in range(3):
        won, refused = race(f"{bucket}/{number}")
        assert (len(won), len(refused)) == (1, 5)
        until(lambda lease=won[0], run=f"{bucket}/{number}": beat(run) > 0 and lease.lost is None)  # type: ignore[misc]
        won[0].release()
    claim = newest_claim(f"{bucket}/2")
    assert claim is not None
    assert claim.state == RELEASED


def test_a_store_without_conditional_writes_is_told_and_read_back(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_over(uri: str, data: bytes) -> bool:
        storage.write(uri, data)
        return True

    monkeypatch.setattr(storage, "create", write_over)
    monkeypatch.setattr(storage, "enforces_create", lambda _: False)
    said: list[str] = []
    with Lease.acquire(run, said.append, times=STILL) as lease:
        assert said[0].startswith(f"warning: the store of {run} does not keep two jobs from writing the same object")
        # Another job that came at the same moment has written over our claim: it holds the run, and we do not.
        held_by(run, FAR, generation=1)
        with pytest.raises(LeaseError, match="claim 1 by bob@far"):
            lease.next_generation()
        assert lease.lost is not None
