"""The clock without Ray: an asyncio object."""

from __future__ import annotations

import asyncio

import pytest

from system.data import clock as clock_module
from system.data.clock import Clock


async def passes(clock: Clock, stream: int, block: int, ahead: int) -> bool:
    """Say whether a gate opens within a tenth of a second."""
    try:
        await asyncio.wait_for(clock.wait(stream, block, ahead), 0.1)
    except TimeoutError:
        return False
    return True


def test_a_gate_opens_when_the_trainers_come_near() -> None:
    async def scene() -> None:
        clock = Clock()
        stream = await clock.open(3, 12)
        assert await clock.start() == (stream, 3)
        assert await passes(clock, stream, 15, 4)
        assert not await passes(clock, stream, 16, 4)
        waiting = asyncio.create_task(clock.wait(stream, 16, 4))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await clock.advance(13, {"step": 3})
        await asyncio.wait_for(waiting, 1)
        assert (await clock.progress())["step"] == 3

    asyncio.run(scene())


def test_who_waits_for_an_older_stream_is_let_through() -> None:
    async def scene() -> None:
        clock = Clock()
        old = await clock.open(0, 0)
        waiting = asyncio.create_task(clock.wait(old, 1000, 4))
        await asyncio.sleep(0.02)
        await clock.open(5, 10)
        await asyncio.wait_for(waiting, 1)

    asyncio.run(scene())


def test_trainers_that_stand_still_open_the_gate_and_those_that_move_far_away_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock_module, "STALL_S", 0.05)

    async def scene() -> None:
        clock = Clock()
        stream = await clock.open(0, 0)
        assert await passes(clock, stream, 1000, 4)
        waiting = asyncio.create_task(clock.wait(stream, 1000, 4))
        for block in range(20):
            await clock.advance(block)
            await asyncio.sleep(0.01)
        assert not waiting.done()
        await asyncio.wait_for(waiting, 1)

    asyncio.run(scene())
