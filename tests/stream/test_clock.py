"""The clock without Ray: an asyncio object."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from system.data import clock as clock_module
from system.data.clock import Clock
from system.data.placing import Place
from system.data.reports import PhaseReport


async def passes(clock: Clock, stream: int, block: int, ahead: int) -> bool:
    """Say whether a gate opens within a tenth of a second."""
    try:
        await asyncio.wait_for(clock.wait(stream, block, ahead), 0.1)
    except TimeoutError:
        return False
    return True


class Above:
    """Stands where a handle of the run's clock does: calls of it arrive."""

    def __init__(self, clock: Clock) -> None:
        self.report_all = SimpleNamespace(remote=lambda *given: asyncio.ensure_future(clock.report_all(*given)))
        self.landed = SimpleNamespace(remote=lambda *given: asyncio.ensure_future(clock.landed(*given)))


def test_a_cells_clock_passes_on_what_it_hears_a_hang_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "GATHER_S", 0.05)

    async def scene() -> None:
        run = Clock()
        cell = Clock(Above(run))
        await cell.report(PhaseReport("rank", "2", "data", "block 6 of step 1", 1, cell=1))
        await cell.report(PhaseReport("decode", "a1b2", "work", "block 6 of step 1", cell=1))
        assert await run.reports() == []
        await asyncio.sleep(0.2)
        assert [told.report for told in await run.reports()] == [told.report for told in await cell.reports()]
        await cell.report(PhaseReport("decode", "a1b2", None, cell=1))
        await cell.report(PhaseReport("rank", "2", "data", "block 6 of step 1", 1, 900.0, "hang", cell=1))
        await asyncio.sleep(0)
        assert [(told.report.name, told.report.level) for told in await run.reports()] == [("2", "hang")]
        await cell.landed(Place("flow", "a1b2", "10.0.0.1", "node", ("0",), "cuda"))
        await asyncio.sleep(0)
        assert await run.places() == await cell.places() != []

    asyncio.run(scene())


def test_the_runs_clock_knows_those_of_the_cells_and_serves_an_only_stream_itself() -> None:
    async def scene() -> None:
        clock = Clock()
        assert await clock.of_cell(0) is None
        await clock.keep(["first", "second"])
        assert await clock.of_cell(1) == "second"
        await clock.keep([])
        assert await clock.of_cell(0) is None

    asyncio.run(scene())


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
    monkeypatch.setattr(clock_module, "STALL_S", 0.25)

    async def scene() -> None:
        clock = Clock()
        stream = await clock.open(0, 0)
        assert await asyncio.wait_for(clock.wait(stream, 1000, 4), 10)
        waiting = asyncio.create_task(clock.wait(stream, 1000, 4))
        for block in range(20):  # longer than a stall
            await clock.advance(block)
            await asyncio.sleep(0.02)
        assert not waiting.done()
        assert await asyncio.wait_for(waiting, 10)

    asyncio.run(scene())


def test_a_rank_that_waits_for_a_block_that_nobody_makes_opens_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "LOOK_S", 0.01)
    monkeypatch.setattr(clock_module, "STARVED_S", 0.04)

    async def scene() -> None:
        clock = Clock()
        stream = await clock.open(0, 0)
        await clock.report(PhaseReport("rank", "0", "compute", "", 1, since_s=60.0, told_at=0.0))
        assert not await passes(clock, stream, 1000, 4)
        await clock.report(PhaseReport("rank", "0", "data", "block 3 of step 1", 1, since_s=60.0, told_at=1.0))
        await clock.report(PhaseReport("decode", "a1b2", "work", "block 3 of step 1", told_at=1.0))
        assert not await passes(clock, stream, 1000, 4)  # it is being made
        await clock.report(PhaseReport("decode", "a1b2", None, told_at=2.0))
        assert await passes(clock, stream, 1000, 4)
        assert await clock.stalls() == 1

    asyncio.run(scene())


def test_a_gate_that_stays_shut_says_so_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "GATE_S", 0.05)

    async def scene() -> None:
        clock = Clock()
        stream = await clock.open(0, 0)
        waiting = asyncio.create_task(clock.wait(stream, 1000, 4))
        while not waiting.done():
            await clock.advance(1)
            await asyncio.sleep(0.01)
        assert not waiting.result()
        assert await clock.wait(stream, 4, 4)

    asyncio.run(scene())


def test_reports_have_the_age_that_the_clock_gives_them_and_who_has_finished_is_gone() -> None:
    async def scene() -> None:
        clock = Clock()
        await clock.report(PhaseReport("rank", "0", "data", "block 3 of step 1", 1, since_s=2.0))
        await clock.report(PhaseReport("decode", "a1b2", "work", "block 3 of step 1"))
        await asyncio.sleep(0.02)
        rank, decoder = await clock.reports()
        assert rank.report.name == "0"
        assert rank.age_s >= decoder.age_s >= 0.01
        assert rank.lasted_s == 2.0 + rank.age_s
        await clock.report(PhaseReport("decode", "a1b2", None))
        assert [told.report.role for told in await clock.reports()] == ["rank"]

    asyncio.run(scene())


def test_after_a_hang_reports_are_those_of_that_moment() -> None:
    async def scene() -> None:
        clock = Clock()
        await clock.report(PhaseReport("rank", "0", "data", "block 3 of step 1", 1))
        await clock.report(PhaseReport("rank", "1", "collective", "sum", 1))
        await clock.report(PhaseReport("rank", "1", "collective", "sum", 1, 9.0, "hang"))
        await clock.report(PhaseReport("rank", "0", "ended", "with an error", 1))
        found = {told.report.name: (told.report.phase, told.report.level) for told in await clock.reports()}
        assert found == {"0": ("data", "well"), "1": ("collective", "hang")}

    asyncio.run(scene())


def test_the_begin_of_a_block_that_comes_after_its_end_is_passed_over() -> None:
    async def scene() -> None:
        clock = Clock()
        begin = PhaseReport("decode", "a1b2", "work", "block 3 of step 1")
        await clock.report(PhaseReport("decode", "a1b2", None))
        await clock.report(begin)
        assert await clock.reports() == []

    asyncio.run(scene())
