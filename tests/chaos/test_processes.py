from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from system.chaos.memory import lines, quarters, role_of
from system.chaos.processes import (
    Process,
    below,
    descendants,
    kill,
    kill_with_descendants,
    look,
    memory_mb,
    parse_stat,
)
from system.chaos.submitted import Submitted, last_words, newest_step
from system.errors import SystemFault

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

RAYLET = "/x/ray/core/src/ray/raylet/raylet --a"
TREE = [
    Process(1, 0, 1, "init"),
    Process(10, 1, 2, "python -m jobs.chaos"),
    Process(20, 10, 3, RAYLET),
    Process(21, 20, 4, "ray::MapWorker(MapBatches(DecodeStage)).submit"),
    Process(22, 21, 5, "python -m system.data.child 3 4 5"),
    Process(23, 20, 6, "ray::RayTrainWorker.execute"),
    Process(24, 20, 7, "ray::SplitCoordinator.get"),
    Process(25, 20, 8, "ray::DashboardAgent"),
    Process(30, 10, 9, "python -m jobs.pretrain"),
    Process(31, 30, 10, "ffmpeg"),
    Process(40, 1, 11, RAYLET),
    Process(41, 40, 12, "ray::RayTrainWorker.execute"),
]


def test_only_what_descends_from_a_process_is_below_it() -> None:
    assert [each.pid for each in below(10, TREE)] == [20, 30, 21, 23, 24, 25, 31, 22]
    assert [each.pid for each in below(40, TREE)] == [41]
    assert below(99, TREE) == []


def test_a_child_counts_for_what_its_parent_is_for() -> None:
    by_pid = {each.pid: each for each in TREE}
    roles = {each.pid: role_of(each, by_pid, 30) for each in TREE}
    assert roles == {
        **{1: "other", 10: "other", 20: "ray", 21: "actors", 22: "actors", 23: "trainers", 24: "coordinator"},
        **{25: "other", 30: "driver", 31: "driver", 40: "ray", 41: "trainers"},
    }


def test_a_name_with_brackets_and_spaces_does_not_shift_the_fields() -> None:
    fields = ["S", "77", *map(str, range(17)), "4242", "0"]
    assert parse_stat(f"5 (a) b (c) {' '.join(fields)}") == (77, 4242)


def test_a_process_is_found_below_its_parent_weighed_and_killed_once() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1)
    try:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        own = next(each for each in descendants(os.getpid()) if each.pid == sleeper.pid)
        assert own.parent == os.getpid()
        private, shared = memory_mb(own.pid)
        assert private > 1
        assert shared < private
        assert not kill(Process(own.pid, own.parent, own.started + 1, own.title)), "another process of the same id"
        assert sleeper.poll() is None
        assert kill(own)
        assert sleeper.wait(10) == -9
        assert look(own.pid) is None
        assert not kill(own)
    finally:
        sleeper.kill()
        sleeper.wait()


def test_what_a_process_has_started_ends_with_it() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        kill_with_descendants(parent.pid)
        assert parent.wait(10) == -9
        assert parent.stdout.read() == "", "the pipe is closed when the last of them is gone"
    left = look(child)
    assert left is None or not left.title


def test_shared_memory_is_weighed_apart() -> None:
    before = memory_mb(os.getpid())
    with mmap.mmap(-1, 32 << 20) as shared:
        shared.write(b"1" * len(shared))
        after = memory_mb(os.getpid())
    assert after[1] - before[1] > 30
    assert after[0] - before[0] < 30


def test_growth_shows_between_the_first_quarter_and_the_last() -> None:
    looks = [{"trainers": 100.0 + step, "driver": 50.0 if step % 2 else 0.0} for step in range(80)]
    found = quarters(looks)
    assert found is not None
    assert found["trainers"] == (109.5, 169.5)
    assert found["driver"] == (50.0, 50.0), "a look without a driver says nothing about the driver"
    assert "trainers        110 ->     170  +55%" in "\n".join(lines(looks))


def test_too_few_looks_say_nothing_about_memory() -> None:
    assert quarters([{"driver": 1.0}] * 23) is None
    assert lines([{"driver": 1.0}] * 23) == ["memory: 23 looks are too few to compare the run's beginning and end"]


def test_the_newest_whole_progress_line_counts() -> None:
    text = b"starting: x\nstep 7/40  loss 1\nfoo step 9/40  \nstep 8/40  loss 1\nstep 9/40  lo"
    assert newest_step(text) == 8
    assert newest_step(b"starting\n") is None


def test_the_reason_of_an_end_is_the_last_error_that_was_told() -> None:
    assert last_words("a\nDataError: no\nstep 3/4  x\nbye\n") == "DataError: no"
    assert last_words("a\nstep 3/4  x\n") == "a"
    assert last_words("") == "it said nothing"


def test_a_job_that_ends_again_and_again_without_a_checkpoint_is_given_up(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", "import sys; print('StorageFault: it is away'); sys.exit(1)"]
    job = Submitted(command, tmp_path / "job.log", os.environ)
    with pytest.raises(SystemFault, match="5 times in a row without a new checkpoint after step 5: StorageFault: it"):
        for _ in range(9):
            job.start(5)
            while job.ended() is None:
                pass
    assert job.starts == 5


def test_a_job_that_has_ended_by_itself_is_not_killed_by_its_old_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Submitted([sys.executable, "-S", "-c", ""], tmp_path / "job.log", os.environ)
    job.start(0)
    while job.ended() is None:
        pass
    monkeypatch.setattr("system.chaos.submitted.kill_with_descendants", pytest.fail)
    job.kill()
    job.stop(1.0)
    assert job.pid is None
