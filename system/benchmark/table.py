"""Lines of the benchmark as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from system.benchmark.line import Line

HEADER = ("stage", "", "ours", "conventional", "ratio", "limit", "share", "to reach", "")


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {unit}".strip()


def row(line: Line) -> tuple[str, ...]:
    """Return a line's cells."""
    reached = {True: "reached", False: "BELOW", None: "" if not line.targets else "?"}[line.reached()]
    return (
        line.stage,
        line.name,
        _figure(line.ours, line.unit),
        _figure(line.conventional, ""),
        "" if line.ratio is None else f"{line.ratio:.2f}x",
        _figure(line.limit, ""),
        "" if line.share is None else f"{line.share:.0%}",
        ", ".join(str(target) for target in line.targets),
        reached,
    )


def table(lines: Sequence[Line]) -> str:
    """Return lines as columns."""
    rows = [HEADER, *(row(line) for line in lines)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows
    )


def markdown(lines: Sequence[Line]) -> str:
    """Return lines as a table of a document, with what is said of each below it."""
    rows = [HEADER, ("---",) * len(HEADER), *(row(line) for line in lines)]
    notes = [f"- {line.stage}, {line.name}: {line.says}" for line in lines if line.says]
    return "\n".join(["| " + " | ".join(cells) + " |" for cells in rows] + ["", *notes]) + "\n"
