"""One rank's part of a run, from a model to the last checkpoint, whatever brings the blocks. No Ray.

The Ray worker gives it the blocks of a Ray Data stream; tests give it blocks made in the same process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from system import storage
from system.core.plan import StepLayout
from system.data.assemble import layout_for
from system.data.columns import Batch
from system.data.dataset import run_uri
from system.data.decoders import build_of_decoders
from system.data.index import Index
from system.errors import ResumeError
from system.methods.base import Networks
from system.recipe import Recipe
from system.train.batch import num_micro_batches
from system.train.checkpoint import Checkpoint, open_checkpoint, retire
from system.train.engine import BatchShape, Engine, make_engine
from system.train.judging import build_model
from system.train.loop import Hooks, Loop, schedule_of
from system.train.manifest import commit, write_rank_file
from system.train.progress import Progress, progress_from
from system.train.telemetry import Metrics
from system.train.torch_engine import rank_and_size
from system.train.warm_start import warm_start, write_start

Values = dict[str, Any]


@dataclass(frozen=True)
class Watchers:
    """Who is told about a rank's progress besides the run folder.

    Attributes:
        on_block: (block number) a block was taken.
        on_step: (values of metrics.jsonl) a step is done.
    """

    on_block: Callable[[int], None] = lambda block: None
    on_step: Callable[[Values], None] = lambda values: None


def train_rank(
    recipe: Recipe,
    index_uri: str,
    from_step: int,
    blocks: Callable[[], Iterator[Batch]],
    watchers: Watchers | None = None,
    device: torch.device | None = None,
) -> Progress:
    """Train one rank from a checkpoint, or from the beginning, to the recipe's stop.

    Args:
        recipe: of the run.
        index_uri: of its index.
        from_step: the checkpoint to start from; 0: none.
        blocks: makes this rank's iterator over blocks from `from_step` on.
        watchers: who else is told.
        device: of the model; default the CPU.

    Returns:
        Where the run is.

    Raises:
        CheckpointFault: if the checkpoint is damaged.
        ResumeError: if it is not the recipe's.
        WeightsError: if a fresh run cannot start from `train.init_from`.
    """
    device, watchers = device or torch.device("cpu"), watchers or Watchers()
    rank, size = rank_and_size()
    index = Index(index_uri)
    layout, schedule = layout_for(recipe, size), schedule_of(recipe, index.num_videos)
    checkpoint = open_checkpoint(run_uri(recipe), from_step) if from_step else None
    progress = progress_from(checkpoint.state["progress"]).at_start() if checkpoint else Progress()
    frozen = frozen_networks(recipe)
    digests = {name: digest_of(network) for name, network in frozen.items()}
    if checkpoint is not None:
        _refuse_others(checkpoint.state.get("frozen", digests), digests)
    engine, shapes = _engine(recipe, layout, checkpoint, device)
    quarantine = QuarantineFile(run_uri(recipe), index) if rank == 0 else None
    metrics = Metrics(run_uri(recipe), from_step, tensorboard=recipe.telemetry.tensorboard) if rank == 0 else None

    def on_step(after: Progress, values: Values) -> None:
        logged = after.step % recipe.telemetry.log_every_steps == 0 or after.step in (1, schedule.stop)
        if metrics is not None and logged:
            metrics.write(values)
        watchers.on_step(values)

    keeper = _Keeper(recipe, index, engine, shapes, digests, metrics, quarantine)
    try:
        on_device = {name: module.to(device) for name, module in frozen.items()}
        loop = Loop(recipe, layout, schedule, engine, device, Hooks(watchers.on_block, on_step, keeper.save), on_device)
        return loop.run(blocks(), progress)
    finally:
        if metrics is not None:
            metrics.close()


@dataclass(frozen=True)
class _Keeper:
    """Writes a run's checkpoints; metrics and quarantine are rank 0's."""

    recipe: Recipe
    index: Index
    engine: Engine
    shapes: dict[str, list[int]]
    frozen: dict[str, str]
    metrics: Metrics | None
    quarantine: QuarantineFile | None

    def save(self, after: Progress) -> None:
        """Write a checkpoint, all ranks together; return when it is committed."""
        run, (rank, size) = run_uri(self.recipe), rank_and_size()
        files: list[Any] = [write_rank_file(run, after.step, rank, self.engine.fragments())]
        if size > 1:
            mine, files = files[0], [None] * size
            dist.all_gather_object(files, mine)
        if self.metrics is not None:
            self.metrics.flush()  # first: what is committed is never repeated, so neither are its metrics
            state = {**_state(self.recipe, self.index, after, size), "frozen": self.frozen}
            commit(run, after.step, files, self.shapes, state)
        if size > 1:
            dist.barrier()
        if self.quarantine is not None:
            self.quarantine.write(after)
            retire(run, self.recipe.checkpoint.keep, self.recipe.checkpoint.keep_every_steps)


def _engine(
    recipe: Recipe, layout: StepLayout, checkpoint: Checkpoint | None, device: torch.device
) -> tuple[Engine, dict[str, list[int]]]:
    module = build_model(recipe, device)
    if checkpoint is None and recipe.train.init_from is not None:
        taken = warm_start(recipe.train.init_from, recipe, module)
        if rank_and_size()[0] == 0:
            write_start(run_uri(recipe), taken)
    shapes = {name: list(param.shape) for name, param in module.named_parameters()}
    clips = min(recipe.train.micro_batch, layout.clips_per_block)
    shape = BatchShape(clips, num_micro_batches(layout.clips_per_block, layout.blocks_per_rank, clips))
    return make_engine(module, recipe.train, recipe.engine, shape, checkpoint), shapes


def _state(recipe: Recipe, index: Index, progress: Progress, size: int) -> Values:
    """Return what a checkpoint says besides its tensors."""
    return {
        "optimizer_step": progress.step,
        "progress": progress.as_dict(),
        "fingerprint": index.fingerprint,
        "index_uri": index.uri,
        "seed": recipe.run.seed,
        "ranks": size,
        "decoders": build_of_decoders(),
    }


def frozen_networks(recipe: Recipe) -> Networks:
    """Load the networks that the method makes its targets with, on the CPU.

    Raises:
        WeightsError: if the weights of one are missing or of another network.
    """
    return recipe.record.frozen(recipe.method, recipe.grid, run_uri(recipe))


def digest_of(network: nn.Module) -> str:
    """Return what tells a network's weights from others: the SHA-256 of its tensors in the order of their names."""
    digest = hashlib.sha256()
    for name, values in sorted(network.state_dict().items()):
        digest.update(name.encode() + values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _refuse_others(before: dict[str, str], now: dict[str, str]) -> None:
    """Refuse frozen networks that are not those that the run has trained with.

    Raises:
        ResumeError: names them.
    """
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise ResumeError(
            f"the {' and the '.join(changed)} of this run has other weights than the one that it trained with, so its"
            " targets would mean something else; put the old file back, or start anew under another run.name"
        )


class QuarantineFile:
    """The list of videos that could not be read, quarantine.jsonl, one a line; written when it changes."""

    def __init__(self, run: str, index: Index) -> None:
        self._uri, self._index = storage.join(run, "quarantine.jsonl"), index
        self._lines: dict[int, str] = {}
        self._written = storage.exists(self._uri)

    def write(self, progress: Progress) -> None:
        """Write the list if it is another one than the last time; no list where there never was a bad video."""
        bad = sorted(progress.quarantine)
        same = self._lines.keys() == progress.quarantine.keys()
        if same and (self._lines or not self._written):
            return
        for video_id in [video_id for video_id in bad if video_id not in self._lines]:
            row, (code, reason) = self._index.row(video_id), progress.quarantine[video_id]
            values = {"video_id": video_id, "uri": row.uri, "name": row.name, "code": code, "reason": reason}
            self._lines[video_id] = json.dumps(values)
        self._lines = {video_id: self._lines[video_id] for video_id in bad}
        storage.write(self._uri, "".join(f"{line}\n" for line in self._lines.values()).encode())
        self._written = bool(self._lines)


def load_model(recipe: Recipe, checkpoint: Checkpoint) -> nn.Module:
    """Build the recipe's model on the CPU with a checkpoint's weights."""
    from system.train.fragments import fill_weights  # noqa: PLC0415

    module = build_model(recipe, torch.device("cpu"))
    fill_weights(module, checkpoint)
    return module.eval()
