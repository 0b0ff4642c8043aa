"""What the sections of a recipe are made of: their base, their kinds of numbers, and which fields may change.

Every field is part of a run's identity and may not change when the run is resumed, unless it is declared with `free`.
The sections themselves are in config.py, and those of the methods under methods/.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Ratio = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a recipe: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)


def free(default: Any, **rules: Any) -> Any:
    """Declare a field that a resumed run may change: it alters how a step is computed or kept, not what it computes."""
    return Field(default, json_schema_extra={"free": True}, **rules)


def _range(value: int | tuple[int, int]) -> int | tuple[int, int]:
    low, high = value if isinstance(value, tuple) else (value, value)
    if not 1 <= low <= high:
        raise ValueError(f"needs 1 <= min <= max, got [{low}, {high}]")
    return value


# How many of a kind of process: so many, or [min, max].
Counted = int | tuple[int, int]
Actors = Annotated[Counted, AfterValidator(_range)]


def fewest(count: Counted) -> int:
    """Return the smallest number of processes of a kind."""
    return count[0] if isinstance(count, tuple) else count


def most(count: Counted) -> int:
    """Return the largest number of processes of a kind."""
    return count[1] if isinstance(count, tuple) else count
