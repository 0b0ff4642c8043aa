"""What a process says that it is doing: records that go to the clock, and what a block is called in them. No Ray.

Ranks tell their phase; the actors of the stream's stages tell the block that they work on. Both call a block by the
same name, so that who waits for it and who makes it can be put together.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from system.core.plan import StepLayout

# Who tells: a rank of the training, or an actor of a stage.
Teller = Literal["rank", "read", "decode", "mask"]


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """What one process was in when it told.

    Attributes:
        role: of the process.
        name: the rank's number, or the beginning of the actor's id.
        phase: that it is in. A rank's: until its first step (`start`), waiting for a block (`data`), its own work
            (`compute`), waiting for the other ranks (`collective`), the optimizer's step (`update`), `checkpoint`,
            `ended`. An actor's: `work`; None: it has finished its block.
        what: the phase is about, such as `block 37 of step 18`; `checkpoint`: the step alone.
        step: of the training, -1 before the first and for actors.
        since_s: how long the phase has lasted.
        level: `slow` when that is longer than usual, `hang` when it was too long and the process ends for it.
        stacks: where its stacks are kept, for a hang.
        told_at: seconds since 1970 by the process's own clock, which puts its reports in order.
        cell: of the rank, or of the stream whose actor it is.
    """

    role: Teller
    name: str
    phase: str | None
    what: str = ""
    step: int = -1
    since_s: float = 0.0
    level: Literal["well", "slow", "hang"] = "well"
    stacks: str = ""
    told_at: float = field(default_factory=time.time)
    cell: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """A report, and how long ago it reached the clock, seconds by the clock's own time."""

    report: PhaseReport
    age_s: float

    @property
    def lasted_s(self) -> float:
        """How long the phase has lasted by now, if nothing has changed."""
        return self.report.since_s + self.age_s


def block_name(layout: StepLayout, number: int) -> str:
    """Return what a block is called in reports."""
    return f"block {number} of step {number // layout.blocks_per_step}"


def block_of(layout: StepLayout, step: int, first_slot: int) -> str:
    """Return what the block is called that begins with a slot of a step; -1: a block of padding alone."""
    if first_slot < 0:
        return f"padding of step {step}"
    part = (first_slot - step * layout.slots_per_step) // layout.slots_per_block
    return block_name(layout, layout.first_block(step) + part)
