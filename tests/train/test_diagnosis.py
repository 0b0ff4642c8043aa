"""Who waits for whom, from reports."""

from __future__ import annotations

import pickle
from typing import Any

from system.core.plan import step_layout
from system.data.reports import PhaseReport, Told, block_name, block_of
from system.train.diagnosis import Warnings, diagnosis, hang_of

BLOCK = "block 24 of step 12"


def rank(name: int, phase: str, what: str = "", since_s: float = 95.0, age_s: float = 0.0, **more: Any) -> Told:
    return Told(PhaseReport("rank", str(name), phase, what, **{"step": 12, "since_s": since_s, **more}), age_s)


def decoder(name: str, what: str, age_s: float) -> Told:
    return Told(PhaseReport("decode", name, "work", what), age_s)


def meets(name: int, **more: Any) -> Told:
    return rank(name, "collective", "the sum over ranks of step 12", **more)


def test_a_rank_waits_for_one_that_waits_for_a_block_that_a_decoder_works_on() -> None:
    found = diagnosis([meets(1), rank(0, "data", BLOCK), decoder("a1b2", BLOCK, 94.6)])
    assert found == [
        "rank 1 has waited 95 s in the sum over ranks of step 12 for rank 0, which has waited 95 s for block 24 of step"
        " 12; decode actor a1b2 has worked on block 24 of step 12 for 95 s"
    ]


def test_a_block_that_was_made_again_is_the_newer_actors() -> None:
    found = diagnosis([rank(0, "data", BLOCK), decoder("dead", BLOCK, 900), decoder("living", BLOCK, 30)])
    assert found == [f"rank 0 has waited 95 s for {BLOCK}; decode actor living has worked on {BLOCK} for 30 s"]


def test_a_block_that_nobody_works_on_is_said_to_be_so() -> None:
    found = diagnosis([rank(0, "data", BLOCK), decoder("a1b2", "block 25 of step 12", 30)])
    assert found == [f"rank 0 has waited 95 s for {BLOCK}; no actor says that it works on {BLOCK}"]


def test_an_actor_that_is_stuck_at_another_block_is_named() -> None:
    (line,) = diagnosis([rank(0, "data", BLOCK), decoder("a1b2", "block 26 of step 13", 94)])
    assert line.endswith(f"{BLOCK}, but decode actor a1b2 has worked on block 26 of step 13 for 94 s")


def test_an_actor_of_another_stream_holds_up_no_block_of_this_one() -> None:
    (line,) = diagnosis([rank(2, "data", BLOCK, cell=1), decoder("a1b2", "block 26 of step 13", 94)])
    assert line.endswith(f"no actor says that it works on {BLOCK}")


def test_a_rank_that_says_nothing_more_is_silent() -> None:
    (line,) = diagnosis([meets(0), rank(1, "compute", "step 12", since_s=2, age_s=93)])
    assert line == (
        "rank 0 has waited 95 s in the sum over ranks of step 12 for rank 1, which has said nothing for 93 s: it is"
        " frozen or its machine is gone; at last it has computed step 12 for 95 s"
    )


def test_a_silent_rank_in_a_collective_is_waited_for_too() -> None:
    (line,) = diagnosis([meets(0), meets(1, age_s=93)])
    assert "for rank 1, which has said nothing for 93 s" in line


def test_ranks_that_all_meet_wait_for_the_network() -> None:
    (line,) = diagnosis([meets(0), meets(1)])
    assert line == (
        "ranks 0 and 1 have waited 95 s in the sum over ranks of step 12, and no rank is elsewhere: what they exchange"
        " does not arrive"
    )


def test_ranks_that_meet_at_different_steps_wait_for_those_behind() -> None:
    (line,) = diagnosis([meets(0), rank(1, "collective", "the sum over ranks of step 11", step=11)])
    assert line.startswith("rank 0 has waited 95 s in the sum over ranks of step 12 for rank 1, which has waited 95 s")


def test_several_ranks_that_are_waited_for_have_a_line_each_and_a_crowd_has_few() -> None:
    some = diagnosis([meets(0), rank(1, "update", "step 12"), rank(2, "checkpoint", "12", since_s=96)])
    assert some == [
        "rank 0 has waited 95 s in the sum over ranks of step 12 for ranks 1 and 2",
        "rank 2 has been at checkpoint 12 for 96 s",
        "rank 1 has updated the weights in step 12 for 95 s",
    ]
    crowd = diagnosis([meets(0), *(rank(number, "compute", "step 12") for number in range(1, 64))])
    assert len(crowd) == 10
    assert crowd[0].endswith("for ranks 1, 2, 3, 4, 5, 6, 7 and 56 more")
    assert crowd[-1] == "and 55 more ranks"


def test_a_rank_that_has_ended_is_no_silent_one() -> None:
    (line,) = diagnosis([meets(0), rank(1, "ended", "with an error", since_s=0, age_s=50)])
    assert line.endswith("for rank 1, which ended 50 s ago with an error")


def test_a_hang_is_a_fault_with_the_diagnosis_its_step_and_where_the_stacks_are() -> None:
    hung = meets(1, level="hang", stacks="hangs/step_12_rank_1.txt")
    fault = hang_of([hung, rank(0, "data", BLOCK), decoder("a1b2", BLOCK, 95)])
    assert fault is not None
    assert fault.step == 12
    assert str(fault).startswith("step 12 does not end: rank 1 has waited 95 s")
    assert str(fault).endswith("for 95 s; stacks: hangs/step_12_rank_1.txt")
    copy = pickle.loads(pickle.dumps(fault))
    assert (str(copy), copy.step) == (str(fault), 12)


def test_without_a_hang_there_is_no_fault() -> None:
    assert hang_of([meets(1, level="slow"), rank(0, "data", BLOCK)]) is None
    assert hang_of([]) is None


def test_a_slow_wait_is_said_once_and_again_when_it_has_doubled() -> None:
    warnings = Warnings()

    def said(since_s: float, level: str = "slow") -> int:
        return len(warnings.lines([rank(0, "data", BLOCK, since_s=since_s, level=level)]))

    assert [said(60), said(62), said(119), said(121), said(130)] == [1, 0, 0, 1, 0]
    assert said(1, "well") == 0
    assert said(60) == 1


def test_a_hang_is_no_warning() -> None:
    assert Warnings().lines([rank(0, "data", BLOCK, level="hang"), rank(1, "data", BLOCK, level="slow")]) == []


def test_a_rank_that_falls_silent_is_warned_of() -> None:
    assert Warnings().lines([rank(0, "compute", "step 12", since_s=1, age_s=40)]) == [
        "slow: rank 0 has said nothing for 40 s: it is frozen or its machine is gone; at last it has computed step 12"
        " for 41 s"
    ]


def test_a_block_has_the_same_name_by_its_number_and_by_its_first_slot() -> None:
    for ranks in (1, 2, 3, 5):
        layout = step_layout(16, 2, ranks, 8)
        for number in range(3 * layout.blocks_per_step):
            block = layout.block(number)
            if block.start < block.stop:
                assert block_of(layout, block.step, block.start) == block_name(layout, number)
    assert block_of(layout, 4, -1) == "padding of step 4"
