"""What a second job does about a run that somebody holds, by the numbers, without waiting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from system.train.claims import HELD, RELEASED, Claim, Process, Seen, Verdict, claim_from, decide

ME = Process("ann", "one", "boot", "pid:[1]", 10, "500")
NEIGHBOUR = replace(ME, user="bob", pid=11, job="raysubmit_1")
FAR = replace(NEIGHBOUR, host="two", boot="other")


def claim(holder: Process = FAR, beat: int = 3, state: str = HELD) -> Claim:
    return Claim(7, "lease", holder, beat, state, 1.0)


def verdict(
    first: Claim | None, now: Claim | None, waited_s: float, *, alive: bool = True, takeover: bool = False
) -> Verdict:
    seen = Seen(first, 100.0, 101.0), Seen(now, 101.0 + waited_s, 200.0)
    return decide(*seen, ME, lambda _: alive, takeover=takeover, expires_s=30.0)


def test_a_run_that_nobody_holds_is_taken_without_a_word() -> None:
    assert verdict(None, None, 0) == Verdict("take")
    assert verdict(claim(), claim(state=RELEASED), 1) == Verdict("take")


@pytest.mark.parametrize("now", [claim(beat=4), replace(claim(), generation=8), replace(claim(), lease="other")])
def test_a_claim_that_changes_while_it_is_watched_refuses_by_its_holders_name(now: Claim) -> None:
    refused = verdict(claim(), now, 10)
    assert refused.move == "refuse"
    assert "bob@two:11 (job raysubmit_1)" in refused.why
    assert "--takeover" in refused.why


def test_a_claim_made_by_another_while_we_wanted_the_first_refuses() -> None:
    assert verdict(None, claim(), 0).move == "refuse"


def test_a_claim_that_does_not_change_is_watched_until_it_expires() -> None:
    assert [verdict(claim(), claim(), waited).move for waited in (0, 29.9, 30, 31)] == [
        "watch",
        "watch",
        "take",
        "take",
    ]
    assert "not renewed for 30 s" in verdict(claim(), claim(), 30).why


def test_waiting_is_counted_between_the_answer_and_the_next_question() -> None:
    first, now = Seen(claim(), 0.0, 25.0), Seen(claim(), 40.0, 60.0)
    assert decide(first, now, ME, lambda _: True, takeover=False, expires_s=30.0).move == "watch"


def test_a_dead_holder_of_this_machine_is_followed_at_once_and_one_of_another_machine_is_not() -> None:
    dead = verdict(claim(NEIGHBOUR), claim(NEIGHBOUR), 0, alive=False)
    assert dead.move == "take"
    assert "bob@one:11 (job raysubmit_1), which no longer lives" in dead.why
    assert verdict(claim(FAR), claim(FAR), 0, alive=False).move == "watch"
    for other in ({"host": "x"}, {"boot": "x"}, {"namespace": "x"}):
        elsewhere = claim(replace(NEIGHBOUR, **other))  # type: ignore[arg-type]
        assert verdict(elsewhere, elsewhere, 0, alive=False).move == "watch"


def test_a_machine_that_cannot_be_told_is_nobodys_neighbour() -> None:
    assert not replace(ME, boot="").is_beside(replace(NEIGHBOUR, boot=""))


def test_takeover_asks_nobody() -> None:
    assert verdict(claim(), claim(beat=4), 0, takeover=True).move == "take"


def test_a_claim_survives_its_bytes_and_bytes_that_are_none_are_somebodys() -> None:
    assert claim_from(7, claim().as_bytes()) == claim()
    for data in (b"", b"[]", b"{}", b'{"holder": {}}', b"\xff\xfe", b'{"holder": "x"}'):
        unknown = claim_from(9, data)
        assert (unknown.generation, unknown.state, str(unknown.holder)) == (9, HELD, "somebody@unknown:0")
    assert claim_from(9, b"a") != claim_from(9, b"b")
