"""What a person writes on the command line, as numbers: `20s`, `5%`, `worker,node`."""

from __future__ import annotations

import re

from system.errors import RecipeError

# What can be killed: a rank's process, a machine, a process that reads, decodes or masks, the job itself.
KINDS = ("worker", "node", "actor", "driver")
UNITS = {"": 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def seconds(option: str, text: str) -> float:
    """Read a duration such as `20s`, `1.5min` or `2h`; a bare number is seconds.

    Raises:
        RecipeError: if it is none, or not more than 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    value = float(found[1]) * UNITS.get(found[2], 0.0) if found else 0.0
    if not value:
        raise RecipeError(f"{option} is a duration above 0, such as 20s, 2min or 1h; got {text!r}")
    return value


def share(option: str, text: str) -> float:
    """Read a share such as `5%` or `0.05`.

    Returns:
        A number from 0 to 1.

    Raises:
        RecipeError: if it is none, or not from 0% to 100%.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    value = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= value <= 1:
        raise RecipeError(f"{option} is a share from 0% to 100%, such as 5% or 0.05; got {text!r}")
    return value


def kinds(option: str, text: str) -> tuple[str, ...]:
    """Read a list of what is killed, such as `worker,node`; `none` is nothing.

    Raises:
        RecipeError: if a word is none of `KINDS`.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["none"]:
        return ()
    wrong = [name for name in names if name not in KINDS]
    if wrong or not names:
        got = ", ".join(wrong) or "nothing"
        raise RecipeError(f"{option} takes {', '.join(KINDS)}, separated by commas, or none; got {got}")
    return tuple(dict.fromkeys(names))
