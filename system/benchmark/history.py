"""What earlier runs of the benchmark measured: a file of JSON lines, one a run, that only grows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from system.benchmark.line import Line
from system.errors import DataError


def record(
    machine: dict[str, Any], asked: dict[str, str], lines: Sequence[Line], when: datetime | None = None
) -> dict[str, Any]:
    """Return one run of the benchmark as plain values.

    Args:
        machine: what it ran on.
        asked: what of the command changes the figures: kind of videos, device.
        lines: what was measured.
        when: default: now.
    """
    at = (when or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"at": at, "machine": machine, "asked": asked, "lines": [line.as_dict() for line in lines]}


def keep(path: Path, entry: dict[str, Any]) -> None:
    """Add a run to the history."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(entry, separators=(",", ":")) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the runs of a history, the oldest first; none if there is no such file.

    Raises:
        DataError: if a line of it cannot be read.
    """
    if not path.exists():
        return []
    found = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number} is no JSON ({error}); take the line out") from error
    return found


def before(runs: Sequence[dict[str, Any]], machine: dict[str, Any], asked: dict[str, str], line: Line) -> float | None:
    """Return a line's newest earlier figure of the same command on the same kind of machine."""
    kind = ("cpu", "cores", "device")
    for run in reversed(runs):
        if run["asked"] == asked and all(run["machine"].get(key) == machine.get(key) for key in kind):
            for each in run["lines"]:
                if (each["stage"], each["name"], each["unit"]) == (line.stage, line.name, line.unit):
                    return float(each["ours"])
    return None
