"""What the ranks of a run computed with: a line for each kind of machine, over all starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from system.data.hardware import Hardware
from system.report.markup import counted
from system.train.starts import Start

NAME = "ranks ran on"
# Addresses that a line names.
NAMED = 16


@dataclass(frozen=True, slots=True)
class Kind:
    """Machines whose ranks have the same hardware.

    Attributes:
        hardware: of a rank.
        machines: their addresses, each once, over all starts.
        ranks: of each start that had some there.
    """

    hardware: Hardware
    machines: tuple[str, ...]
    ranks: tuple[int, ...]


def kinds(starts: Sequence[Start]) -> list[Kind]:
    """Return the kinds of machines that ranks ran on, in the order in which starts met them."""
    machines: dict[Hardware, dict[str, None]] = {}
    ranks: dict[Hardware, list[int]] = {}
    for start in starts:
        for each in start.ran_on or ():
            machines.setdefault(each.hardware, {}).update(dict.fromkeys(each.ranks))
            ranks.setdefault(each.hardware, []).append(sum(each.ranks.values()))
    return [Kind(each, tuple(machines[each]), tuple(ranks[each])) for each in machines]


def ran_on(starts: Sequence[Start]) -> Iterator[tuple[str, str]]:
    """Yield what the ranks of a run computed with, as names and values; or that it is not recorded."""
    for kind in kinds(starts):
        yield NAME, _told(kind, len(starts))
    for count, what in (
        (sum(start.ran_on == () for start in starts), "no rank had begun"),
        (sum(start.ran_on is None for start in starts), "not recorded"),
    ):
        if count:
            yield NAME, f"{what} in {count} of {counted(len(starts), 'start')}"
    if not starts:
        yield NAME, "not recorded"


def _told(kind: Kind, starts: int) -> str:
    driver = f", GPU driver {kind.hardware.driver}" if kind.hardware.driver else ""
    fewest, most = min(kind.ranks), max(kind.ranks)
    ranks = counted(most, "rank") if fewest == most else f"{fewest} to {most} ranks"
    names = ", ".join(kind.machines[:NAMED])
    more = f" and {len(kind.machines) - NAMED} more" if len(kind.machines) > NAMED else ""
    return (
        f"{kind.hardware.device}{driver}, torch {kind.hardware.torch}: {counted(len(kind.machines), 'machine')}"
        f" ({names}{more}), {ranks}, in {len(kind.ranks)} of {counted(starts, 'start')}"
    )
