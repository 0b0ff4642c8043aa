"""A job's lines arrive once each, whatever the connection does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from system.submit.follow import Follower, Seen, UnreachableError

TEXT = "starting\nstep 1/3  loss 1\nstep 2/3  loss 1\ndone"


class Shaky:
    """A cluster whose connection breaks after so many characters, a number for each time that a stream is opened."""

    def __init__(self, breaks: list[int], away: int = 0) -> None:
        self._breaks, self._away, self._streams = breaks, away, 0

    def status(self, job: str) -> Seen:
        if self._away:
            self._away -= 1
            raise UnreachableError("away")
        return Seen("RUNNING") if self._streams < len(self._breaks) else Seen("SUCCEEDED", "", 0)

    def words(self, job: str) -> str:
        return TEXT

    def more_words(self, job: str) -> Iterator[str]:
        stop = self._breaks[self._streams]
        self._streams += 1
        for start in range(0, stop, 5):
            yield TEXT[start : min(stop, start + 5)]
        raise UnreachableError("broken")


def follow(cluster: Shaky) -> tuple[Seen, list[str], list[str]]:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    lines: list[str] = []
    notes: list[str] = []
    seen = Follower(cluster, "job", lines.append, notes.append, lambda: now[0], sleep).follow()
    return seen, lines, notes


@pytest.mark.parametrize("breaks", [[], [3], [9, 9], [20, 4, 31], [len(TEXT)] * 3])
def test_every_line_comes_once_over_any_breaks(breaks: list[int]) -> None:
    seen, lines, notes = follow(Shaky(breaks))
    assert lines == TEXT.splitlines()
    assert seen == Seen("SUCCEEDED", "", 0)
    assert ["the stream of the job's lines broke off" in note for note in notes] == [True] * bool(breaks)


def test_a_cluster_that_is_away_for_a_while_is_waited_for_and_told_once() -> None:
    _, lines, notes = follow(Shaky([9], away=5))
    assert lines == TEXT.splitlines()
    assert [note for note in notes if "stream" not in note][1:] == ["the cluster answers again"]
    assert sum("does not answer" in note for note in notes) == 1


def test_where_no_stream_passes_lines_come_while_the_job_runs_and_that_is_told_once() -> None:
    lines: list[str] = []

    class Streamless(Shaky):
        def status(self, job: str) -> Seen:
            self._streams += 1
            if self._streams < 5:
                return Seen("RUNNING")
            assert lines == TEXT.splitlines()[:3]  # before its end is known
            return Seen("SUCCEEDED", "", 0)

        def words(self, job: str) -> str:
            return TEXT[: 15 * self._streams]

        def more_words(self, job: str) -> Iterator[str]:
            raise UnreachableError("no websockets here")

    notes: list[str] = []
    Follower(Streamless([]), "job", lines.append, notes.append, sleep=lambda _seconds: None).follow()
    assert lines == TEXT.splitlines()
    assert len(notes) == 1
    assert "no websockets here" in notes[0]


def test_a_cluster_that_is_gone_in_the_midst_of_a_stream_is_waited_for() -> None:
    class Gone(Shaky):
        def words(self, job: str) -> str:
            if self._away:
                raise UnreachableError("away")
            return TEXT

        def more_words(self, job: str) -> Iterator[str]:
            self._away = 3
            return super().more_words(job)

    seen, lines, notes = follow(Gone([9]))
    assert lines == TEXT.splitlines()
    assert seen.status == "SUCCEEDED"
    assert ["does not answer" in note for note in notes] == [True, False]


def test_a_cluster_that_stays_away_is_given_up() -> None:
    with pytest.raises(UnreachableError):
        follow(Shaky([9], away=10_000))
