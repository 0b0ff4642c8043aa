"""How lines are written: as they are read best, or as JSON, one record a line, each with run, rank, attempt and step.

One formatter serves both outlets: the jobs' words to a person on stdout, and what workers log with Python's `logging`
on stderr, which Ray keeps in a file of each process.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Literal

Style = Literal["text", "json"]
# Says how lines are written where a recipe does not.
STYLE_VARIABLE = "TUBELET_LOGS"
LOGGER = logging.getLogger("tubelet")


@dataclass(frozen=True, slots=True)
class Context:
    """What all records of a process say about it.

    Attributes:
        style: how they are written.
        run: its name; "": there is none yet.
        role: of the process: `driver` or `rank`.
        rank: of a rank.
        attempt: the generation of the run's lease; 0: none yet.
        step: that is next; -1: none yet.
    """

    style: Style = "text"
    run: str = ""
    role: str = "driver"
    rank: int | None = None
    attempt: int = 0
    step: int = -1

    def fields(self) -> dict[str, Any]:
        """Return what a record says."""
        found: dict[str, Any] = {"run": self.run or None, "role": self.role, "rank": self.rank}
        found |= {"attempt": self.attempt or None, "step": self.step if self.step >= 0 else None}
        return {name: value for name, value in found.items() if value is not None}


class _Process:
    """This process's context; it changes as the run goes on."""

    context = Context()


def style_of(wanted: str, environment: Mapping[str, str] = os.environ) -> Style:
    """Return how lines are written: as a recipe says, or where it leaves that open, as the environment does."""
    return "json" if (environment.get(STYLE_VARIABLE, "text") if wanted == "auto" else wanted) == "json" else "text"


def context() -> Context:
    """Return this process's context."""
    return _Process.context


def begin(new: Context) -> None:
    """Say who this process is."""
    _Process.context = new


def at(*, attempt: int | None = None, step: int | None = None) -> None:
    """Say how far this process is."""
    old = _Process.context
    _Process.context = replace(
        old,
        attempt=old.attempt if attempt is None else attempt,
        step=old.step if step is None else step,
    )


class Formatter(logging.Formatter):
    """Writes a record in the process's style. What a record has in `fields` goes into JSON as it is."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        own, message = _Process.context, record.getMessage()
        if own.style == "text":
            where = " ".join(f"{name}={value}" for name, value in own.fields().items() if name != "role")
            return f"{record.levelname.lower()} {where}: {message}"
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": message,
            **own.fields(),
        }
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        values |= {name: _plain(value) for name, value in fields.items() if name not in values}
        return json.dumps(values)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value  # JSON knows no NaN


def told(line: str, level: int = logging.INFO, **fields: Any) -> str:
    """Return a line for a person as it is printed: itself, or the record of it."""
    if _Process.context.style == "text":
        return line
    record = logging.makeLogRecord({"levelno": level, "levelname": logging.getLevelName(level), "msg": line})
    record.fields = fields
    return Formatter().format(record)


def heard(line: str) -> str:
    """Return what a printed line says to a person: `told` the other way round."""
    if not line.startswith('{"time": '):
        return line
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line


def log_to_stderr(new: Context) -> None:
    """Say who this process is, and have what it logs written to its stderr."""
    begin(new)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    LOGGER.handlers, LOGGER.propagate = [handler], False  # Ray's own handlers would write it once more
    LOGGER.setLevel(logging.INFO)


def log(message: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log what a worker has to say."""
    LOGGER.log(level, message, extra={"fields": fields})
