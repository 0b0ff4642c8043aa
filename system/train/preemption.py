"""When a machine that is to be taken back is owed a checkpoint: pure arithmetic on notices and the time.

A notice is answered with two checkpoints: one at once, in case the machine goes earlier than said, and one shortly
before the deadline, since training goes on until then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

# The second checkpoint is asked for this long before the deadline, at least, seconds: a step has to end first.
MIN_MARGIN_S = 3.0
# ... and at least this many times as long as the last one took from the wish to the manifest.
MARGIN_SAVES = 2.0


@dataclass(frozen=True, slots=True)
class Answered:
    """Which notices have had their checkpoints: ids of machines."""

    at_notice: frozenset[str] = frozenset()
    at_deadline: frozenset[str] = frozenset()


def margin_s(last_save_s: float | None) -> float:
    """Return how long before a deadline the last checkpoint is asked for, seconds."""
    return max(MIN_MARGIN_S, MARGIN_SAVES * (last_save_s or 0.0))


def saves_due(
    answered: Answered, draining: Mapping[str, float], ours: Collection[str], now_s: float, margin: float
) -> tuple[Answered, list[str]]:
    """Return why checkpoints are due now, a line each, and what is answered then.

    Args:
        answered: notices that have been answered.
        draining: machine -> when it will be taken back, seconds since 1970; 0: not said.
        ours: machines that the trainers are on.
        now_s: the time, seconds since 1970.
        margin: from `margin_s`.
    """
    first, second, lines = set(answered.at_notice), set(answered.at_deadline), []
    for machine, deadline in sorted(draining.items()):
        if machine not in ours:
            continue
        left = deadline - now_s
        near = bool(deadline) and left <= margin
        if machine not in first:
            first.add(machine)
            when = f"in {max(0.0, left):.0f} s" if deadline else "at a time that is not said"
            lines.append(f"machine {machine[:8]} will be taken back {when}")
        elif near and machine not in second:
            lines.append(f"machine {machine[:8]} is taken back in {max(0.0, left):.0f} s")
        if near:
            second.add(machine)
    return Answered(frozenset(first), frozenset(second)), lines
