from __future__ import annotations

from system.data.hardware import Hardware
from system.report.ran_on import NAMED, ran_on
from system.train.starts import Machines, Start

H200 = Hardware("NVIDIA H200", "570.86.10", "2.11.0+cu128")
OLDER = Hardware("NVIDIA H200", "535.104.05", "2.11.0+cu128")
CORES = Hardware("AMD EPYC 9654", "", "2.11.0")


def start(ranks: int, *machines: Machines) -> Start:
    return Start(0.0, 0, ranks, ran_on=machines)


def lines(*starts: Start) -> list[str]:
    return [text for _, text in ran_on(starts)]


def test_machines_that_differ_in_a_version_alone_are_kinds_of_their_own() -> None:
    mixed = start(12, Machines(H200, {"10.0.0.1": 8}), Machines(OLDER, {"10.0.0.2": 4}))
    assert lines(mixed) == [
        "NVIDIA H200, GPU driver 570.86.10, torch 2.11.0+cu128: 1 machine (10.0.0.1), 8 ranks, in 1 of 1 start",
        "NVIDIA H200, GPU driver 535.104.05, torch 2.11.0+cu128: 1 machine (10.0.0.2), 4 ranks, in 1 of 1 start",
    ]


def test_a_kind_is_counted_over_all_starts_each_machine_once() -> None:
    first = start(2, Machines(CORES, {"a": 1, "b": 1}))
    second = start(3, Machines(CORES, {"b": 2, "c": 1}))
    assert lines(first, second) == ["AMD EPYC 9654, torch 2.11.0: 3 machines (a, b, c), 2 to 3 ranks, in 2 of 2 starts"]


def test_of_many_machines_the_first_are_named() -> None:
    (line,) = lines(start(100, Machines(CORES, {f"m{number:03d}": 1 for number in range(100)})))
    assert "100 machines (m000, m001, m002, m003" in line
    assert f"m{NAMED - 1:03d} and {100 - NAMED} more), 100 ranks" in line


def test_starts_of_before_the_record_and_those_that_died_too_early_are_told_apart() -> None:
    older, ran = Start(0.0, 0, 2, ran_on=None), start(1, Machines(CORES, {"a": 1}))
    assert lines() == ["not recorded"]
    assert lines(older, older) == ["not recorded in 2 of 2 starts"]
    assert lines(start(2), ran, older)[1:] == ["no rank had begun in 1 of 3 starts", "not recorded in 1 of 3 starts"]
