"""Ranks as plain gloo processes: what training does across ranks, without Ray."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from system.data.assemble import local_blocks
from system.data.dataset import ensure_index, run_uri
from system.recipe import Recipe
from system.train.checkpoint import Checkpoint, latest
from system.train.fragments import STATES, Fragment
from system.train.hooks import Terms
from system.train.progress import Progress
from system.train.session import Watchers, train_rank
from system.train.torch_engine import rank_and_size
from tests.small import stream_spec


def train_here(recipe: Recipe, watchers: Watchers | None = None, terms: Terms | None = None) -> Progress:
    """Train this process's rank from the newest checkpoint, as a worker does."""
    rank, size = rank_and_size()
    found = latest(run_uri(recipe))
    step = found.step if found else 0
    spec = stream_spec(recipe, size, last_step=recipe.run.stop_at_step)
    blocks = lambda: local_blocks(spec, rank, step)  # noqa: E731
    return train_rank(recipe, ensure_index(recipe), step, blocks, watchers, terms=terms)


def train_on(size: int, recipe: Recipe) -> None:
    """Train on this many ranks, from the newest checkpoint."""
    if size == 1:
        train_here(recipe)
    else:
        on_ranks(size, _train, recipe)


def _train(recipe: Recipe) -> None:
    train_here(recipe)


def on_ranks(size: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function on each rank of a fresh gloo group."""
    # A server that has imported everything already: seconds less for every group.
    multiprocessing.set_forkserver_preload([__name__, function.__module__])
    with tempfile.TemporaryDirectory() as folder:
        start = f"file://{Path(folder) / 'store'}"
        start_processes(_rank, (size, start, function, arguments), nprocs=size, start_method="forkserver")  # type: ignore[no-untyped-call]


def _rank(rank: int, size: int, start: str, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # as every launcher sets it
    dist.init_process_group("gloo", init_method=start, rank=rank, world_size=size)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()


def everything(checkpoint: Checkpoint) -> dict[tuple[str, str], torch.Tensor]:
    """Return all weights and moments of a checkpoint, flat."""
    values = {
        (name, state): torch.zeros(torch.Size(shape).numel())
        for name, shape in checkpoint.shapes.items()
        for state in STATES
    }
    checkpoint.fill([Fragment(name, state, 0, flat) for (name, state), flat in values.items()])
    return values


def newest(recipe: Recipe) -> dict[tuple[str, str], torch.Tensor]:
    """Return all weights and moments of a run's newest checkpoint."""
    found = latest(run_uri(recipe))
    assert found is not None
    return everything(found)
