"""The actor that probes a run's checkpoints; online.py, on the driver, says which and when.

Where the recipe asks for no cores and no GPU, the actor is a process beside the driver that Ray counts nothing for: it
runs with the lowest priority, in one thread. Else it waits for a machine that has what it asks for, and gives it back
before machines are looked for again for the trainers.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import partial
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from system import storage
from system.data.clock import untyped_ray
from system.data.dataset import run_uri
from system.errors import TubeletError
from system.evaluate.labelled_sets import Sides
from system.recipe import Recipe

# A row of probe.jsonl.
Row = dict[str, Any]

# TensorBoard shows a folder as a run of its own: its curves lie on those of the training.
BOARD = ("tensorboard", "probe", "events.out.tfevents.0.probe")


class _Actor:
    """Probes checkpoints; reads one ahead in a second thread."""

    def __init__(self, recipe: Recipe, sides: Sides, device: str) -> None:
        from system.evaluate.prober import Prober, humble  # noqa: PLC0415  torch, which the driver does without

        self._humbly = partial(humble, max(1, recipe.probe.cpus))
        self._humbly()
        self._board = storage.join(run_uri(recipe), *BOARD) if recipe.telemetry.tensorboard else None
        self._prober = Prober(recipe, sides, device)

    def ready(self) -> None:
        """Return when the process has started."""

    def hold(self, step: int) -> None:
        """Read a checkpoint's weights, whose turn has not come."""
        self._humbly()
        self._prober.hold(step)

    def probe(self, step: int, known: Row | None, others: list[Row]) -> Row | None:
        """Return the row of a checkpoint: the known one if it is of the same weights and sets; draw it too."""
        self._humbly()
        row = self._prober.probe(step, known) or known
        if self._board is not None and row is not None:
            with suppress(TubeletError):  # the next one draws this one as well
                self._draw(self._board, [*others, row])
        return row

    def _draw(self, uri: str, rows: list[Row]) -> None:
        """Write TensorBoard's file of the probes."""
        from system.evaluate.prober import write_board  # noqa: PLC0415

        with tempfile.TemporaryDirectory(prefix="tubelet-") as folder:
            storage.write(uri, write_board(folder, rows).read_bytes())


def start_actor(recipe: Recipe, sides: Sides) -> Any:
    """Start the actor, which lives as long as the process that starts it."""
    section = recipe.probe
    options: dict[str, Any] = {"num_cpus": section.cpus, "num_gpus": section.gpus, "max_concurrency": 2}
    if not holds_resources(recipe):
        here = ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
    return untyped_ray.remote(**options)(_Actor).remote(recipe, sides, "cuda" if section.gpus else "cpu")


def holds_resources(recipe: Recipe) -> bool:
    """Say whether the probe asks the cluster for cores or a GPU of its own."""
    return bool(recipe.probe.cpus or recipe.probe.gpus)


def end_actor(actor: Any) -> None:
    """End the actor, whatever it is doing; nothing if it has gone."""
    with suppress(ray.exceptions.RayError):
        ray.kill(actor)
