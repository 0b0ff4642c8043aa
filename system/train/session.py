"""One rank's part of a run, from a model to the last checkpoint, whatever brings the blocks. No Ray.

The Ray worker gives it the blocks of a Ray Data stream; tests give it blocks made in the same process.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from system import logs, storage
from system.core.plan import StepLayout
from system.data.assemble import flow_device, layout_for, masks_beside_decoding
from system.data.columns import Batch
from system.data.dataset import run_uri
from system.data.decoders import build_of_decoders
from system.data.index import Index
from system.errors import ResumeError
from system.methods.base import Networks
from system.recipe import Recipe
from system.train.batch import num_micro_batches
from system.train.checkpoint import Checkpoint, open_checkpoint
from system.train.engine import BatchShape, Engine, make_engine
from system.train.fragments import fill_weights
from system.train.hooks import Hooks, Terms
from system.train.judging import build_model
from system.train.lease import Fence
from system.train.ledger import Made
from system.train.loop import Loop
from system.train.progress import Progress, progress_from
from system.train.saving import Books, Keeper, RunFacts
from system.train.schedule import schedule_of
from system.train.standing import Standing
from system.train.sums import Wanted
from system.train.telemetry import Metrics
from system.train.torch_engine import rank_and_size
from system.train.warm_start import warm_start, write_start

Values = dict[str, Any]


@dataclass(frozen=True)
class Watchers:
    """Who is told about a rank's progress besides the run folder, and who asks something of it.

    Attributes:
        on_block: (block number) a block was taken.
        on_step: (values of metrics.jsonl) a step is done.
        wanted: what the driver wants; hooks.py says more.
        at: (phase, detail) what the rank does from now on.
    """

    on_block: Callable[[int], None] = lambda block: None
    on_step: Callable[[Values], None] = lambda values: None
    wanted: Callable[[], Wanted] = lambda: ""
    at: Callable[[str, str], None] = lambda phase, detail: None


def train_rank(
    recipe: Recipe,
    index_uri: str,
    from_step: int,
    blocks: Callable[[], Iterator[Batch]],
    watchers: Watchers | None = None,
    device: torch.device | None = None,
    terms: Terms | None = None,
) -> Progress:
    """Train one rank from a checkpoint, or from the beginning, to the recipe's stop.

    Args:
        recipe: of the run.
        index_uri: of its index.
        from_step: the checkpoint to start from; 0: none.
        blocks: makes this rank's iterator over blocks from `from_step` on.
        watchers: who else is told.
        device: of the model; default the CPU.
        terms: on what terms this start trains.

    Returns:
        Where the run is.

    Raises:
        CheckpointFault: if the checkpoint is damaged.
        ResumeError: if it is not the recipe's.
        WeightsError: if a fresh run cannot start from `train.init_from`.
        LeaseError: if another job has taken the run over.
    """
    device, watchers, terms = device or torch.device("cpu"), watchers or Watchers(), terms or Terms()
    rank, size = rank_and_size()
    index, folder = Index(index_uri), run_uri(recipe)
    layout, schedule = layout_for(recipe, size), schedule_of(recipe, index.num_videos)
    checkpoint = open_checkpoint(folder, from_step) if from_step else None
    progress = progress_from(checkpoint.state["progress"]).at_start() if checkpoint else Progress()
    frozen = frozen_networks(recipe)
    digests = {name: digest_of(network) for name, network in frozen.items()}
    if checkpoint is not None:
        _refuse_others(checkpoint.state.get("frozen", digests), digests)
    engine, shapes = _engine(recipe, layout, checkpoint, device)
    fenced, board = _fenced(folder, terms.generation), recipe.telemetry.tensorboard
    metrics = Metrics(folder, from_step, tensorboard=board, fenced=fenced) if rank == 0 else None
    state = {**_state(recipe, index, size), "frozen": digests}
    made = _made(recipe, size, terms.generation)
    facts = RunFacts(folder, shapes, state, layout.slots_per_step, made, fenced)
    standing = Standing(size, from_step)
    keeper = _keeper(recipe, facts, engine, _books(folder, index, metrics, standing), checkpoint)
    on_device = {name: module.to(device) for name, module in frozen.items()}
    on_step = _telling(recipe, schedule.stop, metrics, standing, watchers)
    hooks = Hooks(watchers.on_block, on_step, keeper, watchers.wanted, watchers.at, terms)
    loop = Loop(recipe, layout, schedule, engine, device, hooks, on_device)
    with _closed(keeper, metrics):
        return loop.run(blocks(), progress)


@contextmanager
def _closed(keeper: Keeper, metrics: Metrics | None) -> Iterator[None]:
    """Complete the checkpoint under way if the training ends with an error, and close the metrics in any case."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception):
            logs.log(f"training ends: {error}", logging.ERROR, error=type(error).__name__)
            _late(error, "the checkpoint under way was not completed", keeper.settle)
        if metrics is not None:
            _late(error, "the newest metrics were not written", metrics.close)
        raise
    if metrics is not None:
        metrics.close()


def _late(error: BaseException, what: str, end: Callable[[], object]) -> None:
    """Do what is to be done after an error; what goes wrong with it is a note on that one, which is what counts."""
    try:
        end()
    except Exception as late:  # noqa: BLE001
        error.add_note(f"{what} either: {late}")


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
    return make_engine(module, recipe.train, recipe.engine, shape, checkpoint, recipe.lr_scale), shapes


def _telling(
    recipe: Recipe, stop: int, metrics: Metrics | None, standing: Standing, watchers: Watchers
) -> Callable[[Progress, Values], None]:
    """Return what is called after each step: it logs the steps that are to be logged, and tells all."""

    def on_step(after: Progress, values: Values) -> None:
        logs.at(step=after.step)
        logged = after.step % recipe.telemetry.log_every_steps == 0 or after.step in (1, stop)
        if metrics is not None and logged:
            metrics.write({key: value for key, value in values.items() if key != "seconds"})
        if logged:
            logs.log(f"step {values['step']}: loss {values['loss']:.4f}, data wait {values['data_wait']:.1%}", **values)
        watchers.on_step({**values, "standing": standing.after(after)} if metrics is not None else values)

    return on_step


def _books(folder: str, index: Index, metrics: Metrics | None, standing: Standing) -> Books:
    """Return what rank 0 keeps with the checkpoints, metrics and the list of bad videos; the others: nothing."""
    if metrics is None:
        return Books()
    quarantine = QuarantineFile(folder, index)

    def after(progress: Progress) -> None:
        standing.kept(progress)
        logs.log(f"checkpoint {progress.step} is committed", checkpoint=progress.step)
        quarantine.write(progress)

    return Books(metrics.flush, after)


def _keeper(recipe: Recipe, facts: RunFacts, engine: Engine, books: Books, checkpoint: Checkpoint | None) -> Keeper:
    """Make what keeps a start's checkpoints."""
    last = checkpoint.ledger if checkpoint else None
    return Keeper(facts, recipe.checkpoint, engine.fragments, books, last, recipe.resources.worker_timeout_s)


def _state(recipe: Recipe, index: Index, size: int) -> Values:
    """Return what every checkpoint of a start says besides its tensors and its progress."""
    return {
        "fingerprint": index.fingerprint,
        "index_uri": index.uri,
        "seed": recipe.run.seed,
        "ranks": size,
        "decoders": build_of_decoders(augmented=recipe.record.labelled),
    }


def _fenced(folder: str, generation: int) -> Callable[[], None]:
    """Return what raises once another job has taken the run over."""
    if not generation:
        return lambda: None
    return Fence(folder, generation).check


def _made(recipe: Recipe, size: int, generation: int) -> Made:
    """Return under what conditions a start makes its steps."""
    mask_device = "" if masks_beside_decoding(recipe) else flow_device(recipe)
    return Made(size, generation, build_of_decoders(augmented=recipe.record.labelled), mask_device)


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
            logs.log(f"{row.name} cannot be read: {reason}", logging.WARNING, video_id=video_id, code=code)
            self._lines[video_id] = json.dumps(values)
        self._lines = {video_id: self._lines[video_id] for video_id in bad}
        storage.write(self._uri, "".join(f"{line}\n" for line in self._lines.values()).encode())
        self._written = bool(self._lines)


def load_model(recipe: Recipe, checkpoint: Checkpoint) -> nn.Module:
    """Build the recipe's model on the CPU with a checkpoint's weights."""
    module = build_model(recipe, torch.device("cpu"))
    fill_weights(module, checkpoint)
    return module.eval()
