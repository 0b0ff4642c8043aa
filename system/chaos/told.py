"""What a chaos run tells at its end: recoveries, broken requests, memory, the audit and where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from system.chaos.kills import Kill
from system.chaos.words import KINDS


def recovery_lines(kills: Sequence[Kill]) -> list[str]:
    """Return a line for each kind that was killed: how often, and seconds until a step and a checkpoint followed."""
    lines = [f"{len(kills)} kills; seconds per recovery, to the next step and to the next checkpoint:"]
    for kind in KINDS:
        own = [kill for kill in kills if kill.kind == kind]
        if own:
            trained = [kill.trained_at - kill.at for kill in own if kill.trained_at is not None]
            committed = [kill.committed_at - kill.at for kill in own if kill.committed_at is not None]
            lines.append(f"  {kind:7s} {len(own):3d} x  step {_spread(trained)}  checkpoint {_spread(committed)}")
    return lines


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.1f} (at most {max(seconds):.1f})" if seconds else "not seen before the run's end"


def fault_line(counts: Mapping[str, Any]) -> str:
    """Return what the proxy did."""
    broken = counts["broken"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(broken.items())) or "none"
    return f"storage: {counts['requests']} requests, {sum(broken.values())} of them broken: {kinds}"
