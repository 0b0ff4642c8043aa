"""Steps and learning rates of a run. Imports no network, so that whoever starts workers need not either."""

from __future__ import annotations

from dataclasses import dataclass

from system.core.schedules import lr_at
from system.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps and learning rates of a run.

    Attributes:
        total: steps of the run.
        stop: this start ends before this step.
        warmup: steps of the warm-up.
        peak: highest learning rate.
        final: last learning rate.
    """

    total: int
    stop: int
    warmup: int
    peak: float
    final: float

    def lr(self, step: int) -> float:
        """Return a step's learning rate."""
        return lr_at(step, total=self.total, warmup=self.warmup, peak=self.peak, final=self.final)


def schedule_of(recipe: Recipe, num_videos: int) -> Schedule:
    """Resolve a recipe's steps and learning rates for a number of videos."""
    peak, final = recipe.learning_rates()
    total = recipe.steps(num_videos)
    stop = min(total, recipe.run.stop_at_step or total)
    return Schedule(total, stop, recipe.warmup_steps(num_videos), peak, final)
