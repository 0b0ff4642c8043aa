"""A rank's watchdog: what it tells, when it warns, and that it ends what does not end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from system.data.reports import PhaseReport
from system.train.watchdog import HUNG, Edges, Patience, Watchdog, keep_stacks, patience_for
from tests.conftest import REPOSITORY

QUICK = Patience(
    deadline_s=0.2, start_s=30.0, warning_s=0.05, look_s=0.01, tell_s=0.02, delivery_s=2.0, flush_s=0.0, frozen_s=30.0
)


class World:
    """What a watchdog told, kept and ended."""

    def __init__(self) -> None:
        self.told: list[PhaseReport] = []
        self.kept: dict[str, str] = {}
        self.ended: list[int] = []

    def edges(self) -> Edges:
        return Edges(
            self.told.append, lambda name, stacks: self.kept.update({name: stacks.decode()}), self.ended.append
        )

    def until(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < until, self.told
            time.sleep(0.005)


def after_first_step(watchdog: Watchdog) -> None:
    """Let a step end, so that what is usual is known."""
    watchdog.at("data", "block 0 of step 0")
    watchdog.at("data", "block 1 of step 1")


def wait_for_somebody(done: threading.Event) -> None:
    done.wait()


def test_each_phase_is_told_with_what_it_is_about_and_how_long_it_lasts() -> None:
    world = World()
    with Watchdog(3, QUICK, world.edges()) as watchdog:
        watchdog.at("data", "block 24 of step 12")
        world.until(lambda: world.told[-1].phase == "data" and world.told[-1].since_s > 0)
        found = world.told[-1]
    assert (found.role, found.name, found.what, found.step) == ("rank", "3", "block 24 of step 12", 12)
    assert [world.told[0].phase, world.told[-1].phase] == ["start", "ended"]
    assert not world.ended


def test_the_start_and_the_first_step_have_more_time() -> None:
    world = World()
    patience = Patience(deadline_s=0.0, start_s=30.0, look_s=0.01, tell_s=0.01)
    with Watchdog(0, patience, world.edges()) as watchdog:
        world.until(lambda: len(world.told) > 5)
        watchdog.at("compute", "step 0")
        world.until(lambda: len(world.told) > 10)
    assert not world.ended
    assert {report.level for report in world.told} == {"well"}
    assert patience_for(900.0).start_s > patience_for(900.0).deadline_s == 900.0


def test_a_phase_that_lasts_longer_than_usual_is_told_as_slow_until_it_ends() -> None:
    world = World()
    with Watchdog(0, Patience(deadline_s=30, warning_s=0.05, look_s=0.01, tell_s=0.02), world.edges()) as watchdog:
        after_first_step(watchdog)
        world.until(lambda: world.told[-1].level == "slow")
        assert world.told[-1].since_s > 0.05
        watchdog.at("compute")  # names no step: it is of the same one
        world.until(lambda: world.told[-1].phase == "compute")
        assert world.told[-1].step == 1
    assert [report.level for report in world.told if report.phase == "ended"] == ["well"]
    assert not world.ended


def test_a_phase_is_slow_only_if_it_is_longer_than_many_usual_steps() -> None:
    world = World()
    patience = Patience(deadline_s=30, warning_s=0.0, warning_steps=1e6, look_s=0.01, tell_s=0.01)
    with Watchdog(0, patience, world.edges()) as watchdog:
        watchdog.at("data", "block 0 of step 0")
        time.sleep(0.01)
        watchdog.at("data", "block 1 of step 1")  # the median is above a hundredth of a second, a million of them hours
        world.until(lambda: len(world.told) > 8)
    assert {report.level for report in world.told} == {"well"}


def test_a_hang_is_told_its_stacks_are_kept_and_the_process_ends() -> None:
    world, done = World(), threading.Event()
    stuck = threading.Thread(target=wait_for_somebody, args=(done,))
    stuck.start()
    with Watchdog(1, QUICK, world.edges()) as watchdog:
        after_first_step(watchdog)
        watchdog.at("collective", "sum over ranks of step 1")
        world.until(lambda: bool(world.ended))
    done.set()
    stuck.join()
    (report,) = [each for each in world.told if each.level == "hang"]
    assert (report.phase, report.step, report.stacks) == ("collective", 1, "hangs/step_1_rank_1.txt")
    text = world.kept["step_1_rank_1.txt"]
    assert text.startswith("rank 1, step 1: more than 0.2 s in collective sum over ranks of step 1")
    assert "wait_for_somebody" in text
    assert world.ended == [HUNG]


def test_storage_that_hangs_or_a_clock_that_is_gone_does_not_keep_the_process_alive() -> None:
    world, done = World(), threading.Event()

    def gone(report: PhaseReport) -> None:
        raise ConnectionError(report)

    patience = Patience(deadline_s=0.05, look_s=0.01, tell_s=0.02, delivery_s=0.1, flush_s=0.0)
    with Watchdog(0, patience, Edges(gone, lambda *_: done.wait(), world.ended.append)) as watchdog:
        after_first_step(watchdog)
        world.until(lambda: bool(world.ended))
    done.set()
    assert world.ended == [HUNG]


def test_no_thread_is_left_after_training() -> None:
    before = threading.active_count()
    world = World()
    with pytest.raises(RuntimeError), Watchdog(0, QUICK, world.edges()) as watchdog:
        watchdog.at("compute", "step 0")
        raise RuntimeError
    assert threading.active_count() == before
    assert (world.told[-1].phase, world.told[-1].what) == ("ended", "with an error")


def test_stacks_are_kept_in_the_runs_folder(tmp_path: Path) -> None:
    keep_stacks(str(tmp_path), "step_3_rank_0.txt", b"stacks")
    assert (tmp_path / "hangs" / "step_3_rank_0.txt").read_bytes() == b"stacks"


# Native code that keeps the interpreter's lock: the watchdog's own thread cannot run.
FROZEN = """
import ctypes
from system.train.watchdog import Edges, Patience, Watchdog
patience = Patience(deadline_s=0.2, start_s=0.2, look_s=0.01, frozen_s=0.2)
with Watchdog(0, patience, Edges(lambda report: None, lambda name, stacks: None)) as watchdog:
    import time
    time.sleep(0.1)
    ctypes.PyDLL(None).sleep(60)
"""


def test_a_process_whose_interpreter_is_locked_ends_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FROZEN], cwd=REPOSITORY, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    assert 'File "<string>", line 8' in done.stderr


@pytest.mark.slow
def test_a_rank_that_waits_for_a_frozen_one_says_so_keeps_its_stacks_and_ends(tmp_path: Path) -> None:
    script = "from tests.train.hanging import rank; import sys; rank(int(sys.argv[1]), sys.argv[2])"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(number), str(tmp_path)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        for number in range(2)
    ]
    try:
        until = time.monotonic() + 100
        while not (tmp_path / "rank_1_stops").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        os.kill(ranks[1].pid, signal.SIGSTOP)
        assert ranks[0].wait(100) == HUNG
        assert ranks[1].poll() is None
    finally:
        for process in ranks:
            process.kill()
            process.wait(10)
    assert "hang collective sum of step 2" in (tmp_path / "told.txt").read_text()
    assert "all_reduce" in (tmp_path / "hangs" / "step_2_rank_0.txt").read_text()
