"""Who waits for whom: what the reports of ranks and of the stream's actors say when they are put together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from system.data.reports import Told
from system.errors import HangFault

# A rank tells every five seconds; one that has not for so long is frozen, or its machine is gone, seconds.
SILENT_S = 30.0
# So many names are written out; of more, the rest is a number.
_NAMES = 8

_STAGES = {"read": "read actor", "decode": "decode actor", "mask": "mask actor"}
_DOING = {
    "start": "has been starting for {s} s",
    "data": "has waited {s} s for {what}",
    "compute": "has computed {what} for {s} s",
    "collective": "has waited {s} s in {what}",
    "update": "has updated the weights in {what} for {s} s",
    "checkpoint": "has been at checkpoint {what} for {s} s",
    "ended": "ended {s} s ago {what}",
}


def _listed(names: Iterable[str]) -> str:
    """Return names in a row: `1, 2 and 3`."""
    shown = list(names)
    if len(shown) > _NAMES:
        shown = [*shown[: _NAMES - 1], f"{len(shown) - _NAMES + 1} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _ranks(told: Sequence[Told]) -> str:
    return f"rank{'s' if len(told) > 1 else ''} {_listed(each.report.name for each in told)}"


def _doing(told: Told) -> str:
    """Say what a rank does, without its name."""
    report = told.report
    doing = _DOING.get(report.phase or "", f"has been in {report.phase} of {{what}} for {{s}} s")
    words = doing.format(s=f"{told.lasted_s:.0f}", what=report.what or f"step {report.step}").rstrip()
    if silent(told):
        return f"has said nothing for {told.age_s:.0f} s: it is frozen or its machine is gone; at last it {words}"
    return words


def silent(told: Told) -> bool:
    """Say whether a rank's reports have stopped."""
    return told.report.role == "rank" and told.report.phase != "ended" and told.age_s > SILENT_S


def _waits(told: Told) -> bool:
    return told.report.phase == "collective" and not silent(told)


def _works(told: Told) -> str:
    report = told.report
    return f"{_STAGES[report.role]} {report.name} has worked on {report.what} for {told.lasted_s:.0f} s"


def _makers(waiting: Told, reports: Sequence[Told]) -> str:
    """Say who works on the block that a rank waits for, or who else may hold it up."""
    block = waiting.report.what
    actors = [told for told in reports if told.report.role != "rank" and told.report.cell == waiting.report.cell]
    mine = [told for told in actors if told.report.what == block]
    if mine:
        return _works(min(mine, key=lambda told: told.lasted_s))  # an older one was lost, its block given to another
    # Blocks keep their order on their way, so one that an actor does not give back holds up others.
    stuck = [told for told in actors if 2 * told.lasted_s > waiting.lasted_s]
    longest = sorted(stuck, key=lambda told: -told.lasted_s)[:_NAMES]
    nobody = f"no actor says that it works on {block}"
    return ", but ".join([nobody, _listed(map(_works, longest))] if longest else [nobody])


def _with_makers(told: Told, reports: Sequence[Told]) -> str:
    """Say what a rank does and, of one that waits for a block, who makes it."""
    words = _doing(told)
    if told.report.phase == "data" and not silent(told):
        words += f"; {_makers(told, reports)}"
    return words


def diagnosis(reports: Sequence[Told]) -> list[str]:
    """Say what each rank waits for, the ranks that are waited for in the same sentence.

    Args:
        reports: of ranks and of the stages' actors.

    Returns:
        Lines, such as "rank 1 has waited 95 s in the sum over ranks of step 12 for rank 0, which has waited 95 s for
        block 24 of step 12; decode actor a1b2c3d4 has worked on block 24 of step 12 for 95 s".
    """
    ranks = sorted((told for told in reports if told.report.role == "rank"), key=lambda told: int(told.report.name))
    meetings: dict[tuple[int, str], list[Told]] = {}
    for told in ranks:
        if _waits(told):
            meetings.setdefault((told.report.step, told.report.what), []).append(told)
    others = [told for told in ranks if not _waits(told)]
    if not meetings:
        return _each(others, reports)
    # Who meets at the latest place waits for everybody else.
    *behind, (_, waiting) = sorted(meetings.items(), key=lambda item: item[0][0])
    awaited = [*others, *(told for _, group in behind for told in group)]
    longest = max(waiting, key=lambda told: told.lasted_s)
    head = f"{_ranks(waiting)} {_doing(longest).replace('has', 'has' if len(waiting) == 1 else 'have', 1)}"
    if not awaited:
        return [f"{head}, and no rank is elsewhere: what they exchange does not arrive"]
    if len(awaited) == 1:
        return [f"{head} for {_ranks(awaited)}, which {_with_makers(awaited[0], reports)}"]
    return [f"{head} for {_ranks(awaited)}", *_each(awaited, reports)]


def _each(ranks: Sequence[Told], reports: Sequence[Told]) -> list[str]:
    """Return a line for each of the ranks that have been at it for the longest."""
    longest = sorted(ranks, key=lambda told: -told.lasted_s)
    lines = [f"{_ranks([told])} {_with_makers(told, reports)}" for told in longest[:_NAMES]]
    return [*lines, f"and {len(ranks) - _NAMES} more ranks"] if len(ranks) > _NAMES else lines


class Warnings:
    """Says of each wait that it is slow once, and again whenever it has become twice as long."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], float] = {}

    def lines(self, reports: Sequence[Told]) -> list[str]:
        """Return the lines that are due.

        Args:
            reports: newest ones. Of a hang nothing is said here: it ends the attempt, and is the reason for that.
        """
        if any(told.report.level == "hang" for told in reports):
            return []
        slow = {
            (told.report.name, f"{told.report.phase} {told.report.what} {told.report.step}"): told.lasted_s
            for told in reports
            if told.report.role == "rank" and (told.report.level != "well" or silent(told))
        }
        due = any(lasted >= 2 * self._said.get(key, 0.0) for key, lasted in slow.items())
        self._said = {key: lasted if due else self._said[key] for key, lasted in slow.items()}
        return [f"slow: {line}" for line in diagnosis(reports)] if due else []


def hang_of(reports: Sequence[Told]) -> HangFault | None:
    """Return the fault that a rank's watchdog told before it ended the process, with who waited for whom.

    Args:
        reports: of the attempt that has failed.
    """
    hung = [told.report for told in reports if told.report.level == "hang"]
    if not hung:
        return None
    step = max(report.step for report in hung)
    at = f"step {step}" if step >= 0 else "the start"
    stacks = _listed(sorted(report.stacks for report in hung if report.stacks))
    kept = f"; stacks: {stacks}" if stacks else ""
    return HangFault(f"{at} does not end: {'; '.join(diagnosis(reports))}{kept}", step)
