"""A dashboard that breaks off, says nothing or is in the environment as another one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

from system.errors import SystemFault
from system.submit import client
from system.submit.client import Dashboard
from system.submit.follow import Follower, UnreachableError

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
WORDS = "step 1/3  loss 1\nstep 2/3  loss 1\ndone\n"


def version(_request: web.Request) -> web.Response:
    return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""})


@contextmanager
def served(**answers: Answer) -> Iterator[str]:
    """Serve a dashboard on loopback, in a thread; yields its address."""
    ready, loop, at = threading.Event(), asyncio.new_event_loop(), []

    async def begin() -> None:
        app = web.Application()

        async def the_version(request: web.Request) -> web.StreamResponse:
            return version(request)

        app.router.add_get("/api/version", answers.get("version", the_version))
        for path, name in (("/api/jobs/a/logs/tail", "tail"), ("/api/jobs/a/logs", "logs"), ("/api/jobs/a", "job")):
            if name in answers:
                app.router.add_get(path, answers[name])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        at.append(runner.addresses[0][1])
        ready.set()

    loop.create_task(begin())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield f"http://127.0.0.1:{at[0]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # put back afterwards: a dashboard sets it


async def cut(request: web.Request) -> web.StreamResponse:
    """Say a part, and be gone without a closing word."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str(WORDS[:20])
    assert request.transport is not None
    request.transport.abort()
    return socket


async def silent(request: web.Request) -> web.StreamResponse:
    """Say a part, and then nothing, as a tunnel does whose other end is gone."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str(WORDS[:20])
    await asyncio.sleep(60)
    return socket


def test_a_connection_that_breaks_off_is_an_absence_and_not_an_error() -> None:
    with served(tail=cut) as address, pytest.raises(UnreachableError, match="WebSocket"):
        list(Dashboard(address).more_words("a"))


def test_a_proxy_that_lets_no_stream_through_is_no_error_either() -> None:
    with served() as address, pytest.raises(UnreachableError, match="404"):
        list(Dashboard(address).more_words("a"))


def test_a_stream_that_says_nothing_for_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_S", 0.2)
    with served(tail=silent) as address:
        assert "".join(Dashboard(address).more_words("a")) == WORDS[:20]


def test_an_answer_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    with served(job=never) as address:
        dashboard = Dashboard(address)
        monkeypatch.setattr(client, "ANSWER_S", 0.2)
        with pytest.raises(UnreachableError):
            dashboard.status("a")


def test_a_job_is_followed_over_breaks_and_silence_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_S", 0.2)
    streams = iter((cut, silent, cut))
    ended: list[bool] = []

    async def tail(request: web.Request) -> web.StreamResponse:
        try:
            return await next(streams)(request)
        finally:
            if not ended and next(remaining, None) is None:
                ended.append(True)

    remaining = iter(range(2))

    async def job(_request: web.Request) -> web.StreamResponse:
        status = "SUCCEEDED" if ended else "RUNNING"
        return web.json_response({"type": "SUBMISSION", "status": status, "entrypoint": "", "submission_id": "a"})

    async def logs(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"logs": WORDS})

    lines: list[str] = []
    with served(tail=tail, job=job, logs=logs) as address:
        seen = Follower(Dashboard(address), "a", lines.append, lambda _note: None, sleep=lambda _seconds: None).follow()
    assert seen.status == "SUCCEEDED"
    assert lines == WORDS.splitlines()


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
def test_the_given_address_is_asked_whatever_the_environment_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    with served(tail=cut) as address, pytest.raises(UnreachableError, match="WebSocket"):
        list(Dashboard(address).more_words("a"))


def test_an_answer_that_is_a_refusal_is_an_error() -> None:
    async def refuses(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text="no such thing")

    with served(job=refuses) as address, pytest.raises(SystemFault) as caught:
        Dashboard(address).status("a")
    assert not isinstance(caught.value, UnreachableError)
