from __future__ import annotations

from itertools import islice

from system.chaos.kills import Kill, Timetable, sequence, victim
from system.chaos.told import fault_line, recovery_lines
from system.chaos.words import KINDS


def test_every_kind_comes_once_in_each_round_and_rounds_differ() -> None:
    drawn = list(islice(sequence(KINDS, 0), 80))
    rounds = [tuple(drawn[start : start + 4]) for start in range(0, 80, 4)]
    assert all(sorted(each) == sorted(KINDS) for each in rounds)
    assert len(set(rounds)) > 5


def test_a_seed_gives_the_same_kills_and_another_seed_others() -> None:
    first, again, other = (list(islice(sequence(KINDS, seed), 40)) for seed in (3, 3, 4))
    assert first == again != other
    assert [victim(range(100), 3, number) for number in range(9)] == [victim(range(100), 3, n) for n in range(9)]
    assert len({victim(range(100), 3, number) for number in range(9)}) > 4
    assert len({victim(range(100), seed, 0) for seed in range(9)}) > 4


def test_no_kinds_are_no_kills() -> None:
    assert list(sequence((), 0)) == []


def test_the_first_kill_is_due_so_long_after_the_first_checkpoint() -> None:
    table = Timetable(20.0)
    assert not table.saw(0, 100.0)
    assert not table.due(500.0)
    assert table.saw(5, 500.0)
    assert not table.saw(10, 510.0)  # later ones do not begin it anew
    assert not table.due(519.9)
    assert table.due(520.0)


def test_the_next_kill_waits_for_a_checkpoint_of_after_the_recovery() -> None:
    table = Timetable(20.0)
    table.saw(5, 0.0)
    settled = [table.settled]
    table.killed()
    settled.append(table.settled)
    assert not table.saw(10, 30.0)  # was under way at the kill
    table.recovered()
    assert not table.saw(10, 60.0)
    assert [*settled, table.settled] == [True, False, False]
    assert not table.due(1000.0)
    assert table.saw(15, 70.0)
    assert not table.due(89.0)
    assert table.due(90.0)


def test_recoveries_are_told_by_kind_with_those_that_were_not_seen() -> None:
    kills = [
        Kill("worker", 1, 10.0, 5, trained_at=20.0, committed_at=21.0),
        Kill("worker", 2, 30.0, 9, trained_at=50.0, committed_at=55.0),
        Kill("driver", 3, 60.0, 9),
    ]
    told = recovery_lines(kills)
    assert told[0].startswith("3 kills")
    assert "worker    2 x  step 15.0 (at most 20.0)  checkpoint 18.0 (at most 25.0)" in told[1]
    assert "driver    1 x  step not seen" in told[2]


def test_broken_requests_are_told_by_kind() -> None:
    counts = {"requests": 200, "broken": {"reset": 4, "error500": 6}}
    assert fault_line(counts) == "storage: 200 requests, 10 of them broken: 6 error500, 4 reset"
    assert fault_line({"requests": 3, "broken": {}}).endswith("0 of them broken: none")
