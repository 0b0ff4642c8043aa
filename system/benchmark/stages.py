"""The stages that are measured, and what every one of them is given."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from system.benchmark.line import Line

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """How the stages are measured.

    Attributes:
        videos: a folder of videos, or `synthetic`, which needs no file.
        scratch: a folder for what a stage writes; it is deleted afterwards.
        device: torch device of what runs on one.
        short: as little as shows that everything works; such figures mean nothing.
        say: takes lines for the user while it goes on.
    """

    videos: str
    scratch: str
    device: str
    short: bool
    say: Say

    @property
    def repeats(self) -> int:
        """Interleaved repeats that the medians are of."""
        return 1 if self.short else 5


# Each is a module beside this one with a function `measure`.
STAGES = ("decode", "mask", "step", "pipeline", "memory", "loop", "plan", "checkpoint", "startup")


def measure(stage: str, asked: Asked) -> tuple[Line, ...]:
    """Measure one of `STAGES`.

    It is imported here: `mask` and `step` run on hosts without Ray and DeepSpeed.
    """
    module: Any = importlib.import_module(f"system.benchmark.{stage}")
    return tuple(module.measure(asked))
