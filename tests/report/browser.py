"""A headless Chromium for tests of pages, driven over its own protocol: what it says of a page, and pictures of it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S, LOAD_S = 30.0, 30.0
# Run in the page: how wide it is, what sticks out of it, which pictures were decoded, and what it asked for.
LOOK = """
(() => {
  const wide = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll("body *")].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width > 0 && (box.right > wide + 1 || box.left < -1);
  });
  const pictures = [...document.images];
  return {
    wide, scrolls: document.documentElement.scrollWidth,
    out: out.slice(0, 5).map((each) => each.outerHTML.slice(0, 120)),
    pictures: pictures.length, empty: pictures.filter((each) => !each.naturalWidth).length,
    asked: performance.getEntriesByType("resource").map((each) => each.name.slice(0, 80)),
    title: document.title, ran: window.ran ?? null,
    ground: getComputedStyle(document.body).backgroundColor,
  };
})()
"""


def chromium() -> str | None:
    """Return where a Chromium is; None: nowhere."""
    return next((place for place in map(shutil.which, NAMES) if place), None)


@dataclass
class Seen:
    """What a page is like: what `LOOK` returns, the errors that it had, a picture of all of it, and a number of it."""

    page: dict[str, Any]
    errors: list[str] = field(default_factory=list)
    picture: bytes = b""
    number: float = 0.0


@dataclass(frozen=True)
class View:
    """A screen: its width in px, whether it is dark, and what is run in the page before it is looked at."""

    width: int
    dark: bool = False
    script: str = ""


class Browser:
    """A running Chromium; use it as a context."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="tubelet-browser-")
        options = [
            "--headless=new",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
            "--no-first-run",
        ]
        options += ["--no-sandbox"] if os.geteuid() == 0 else []
        command = [program, *options, f"--user-data-dir={self._folder}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(START_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _port(self) -> str:
        told, end = Path(self._folder, "DevToolsActivePort"), time.monotonic() + START_S
        while time.monotonic() < end:
            if told.exists() and "\n" in told.read_text():
                return told.read_text().splitlines()[0]
            time.sleep(0.05)
        raise TimeoutError("Chromium did not open its port")

    def see(self, url: str, view: View, *, whole: bool = False, number: str = "0") -> Seen:
        """Open a page on a screen and say what it is like.

        Args:
            url: of it.
            view: the screen.
            whole: take a picture of all of it.
            number: a script whose value is wanted.
        """
        return asyncio.run(self._see(url, view, whole=whole, number=number))

    async def _see(self, url: str, view: View, *, whole: bool, number: str) -> Seen:
        root = f"http://127.0.0.1:{self._port()}"
        async with aiohttp.ClientSession() as session:
            async with session.put(f"{root}/json/new?about:blank") as answer:
                target = await answer.json()
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                seen = await asyncio.wait_for(_visit(_Talk(socket), url, view, whole=whole, number=number), LOAD_S)
            await session.get(f"{root}/json/close/{target['id']}")
        return seen


class _Talk:
    """Questions to a page and their answers; what happens meanwhile is kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0
        self.events: list[dict[str, Any]] = []

    async def ask(self, method: str, **given: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_str(json.dumps({"id": self._number, "method": method, "params": given}))
        while True:
            told = json.loads(await self._socket.receive_str())
            if told.get("id") == self._number:
                assert "error" not in told, told
                return dict(told["result"])
            self.events.append(told)

    async def wait_for(self, name: str) -> None:
        while not any(each.get("method") == name for each in self.events):
            self.events.append(json.loads(await self._socket.receive_str()))


async def _visit(talk: _Talk, url: str, view: View, *, whole: bool, number: str) -> Seen:
    for domain in ("Page", "Runtime", "Log", "Network"):
        await talk.ask(f"{domain}.enable")
    screen = {"width": view.width, "height": 800, "deviceScaleFactor": 1, "mobile": view.width < 640}
    await talk.ask("Emulation.setDeviceMetricsOverride", **screen)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if view.dark else "light"}
    await talk.ask("Emulation.setEmulatedMedia", features=[scheme])
    await talk.ask("Page.navigate", url=url)
    await talk.wait_for("Page.loadEventFired")
    ask: Callable[[str], Awaitable[dict[str, Any]]] = lambda script: talk.ask(  # noqa: E731
        "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
    )
    if view.script:
        await ask(view.script)
    page = (await ask(LOOK))["result"]["value"]
    value = float((await ask(number))["result"]["value"])
    picture = b""
    if whole:
        shot = await talk.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        picture = base64.b64decode(shot["data"])
    return Seen(page, [text for event in talk.events if (text := _error(event))], picture, value)


def _error(event: dict[str, Any]) -> str:
    """Return what went wrong by an event of the page; "" if nothing did."""
    given, method = event.get("params", {}), event.get("method")
    if method == "Runtime.exceptionThrown":
        return str(given["exceptionDetails"])
    if method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
        return str(given["args"])
    if method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
        return str(given["entry"])
    return ""
