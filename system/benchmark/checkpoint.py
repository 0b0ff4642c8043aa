"""What a checkpoint costs the training, and how fast it is written; no Ray, one rank of the plain engine."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch

from system.benchmark.children import REPOSITORY
from system.benchmark.line import Line, Target
from system.benchmark.stages import Asked
from system.benchmark.timing import Measured
from system.benchmark.torch_work import threads
from system.config import CheckpointSection
from system.core.masks import Visible
from system.data.columns import Batch
from system.errors import SystemFault
from system.recipe import Recipe, load_recipe
from system.train.batch import micro_batches
from system.train.fragments import Fragment
from system.train.judging import build_model, judge
from system.train.ledger import Made
from system.train.progress import Progress
from system.train.recorder import Span
from system.train.saving import Books, Keeper, RunFacts
from system.train.torch_engine import TorchEngine

RECIPES = REPOSITORY / "jobs" / "recipes"
# A model that is made in no time, for the short form.
TINY = ("model.width=48", "model.heads=3", "model.depth=1", "model.decoder_depth=1", "train.global_batch=4")
# Steps before a checkpoint, and the most that are taken while one is written.
STEPS = 3
MOST_STEPS = 50
SLOTS = 4


class Rank:
    """One rank that trains on one block, over and over.

    Args:
        recipe: of the model; one of its global batch is a step.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        module = build_model(recipe, torch.device("cpu"))
        self.shapes = {name: list(param.shape) for name, param in module.named_parameters()}
        self.engine = TorchEngine(module, recipe.train, recipe.engine)
        self._block = drawn_block(recipe)

    def step(self) -> None:
        """Take an optimizer step."""
        batches = list(micro_batches(self._block, self._recipe.train.micro_batch, torch.device("cpu")))
        for number, batch in enumerate(batches, 1):
            losses = judge(self._recipe, self.engine.forward, batch).losses.values()
            self.engine.backward(sum(loss.sum() for loss in losses), last=number == len(batches))  # type: ignore[arg-type]
        self.engine.step(1e-4)


def drawn_block(recipe: Recipe) -> Batch:
    """Return a block of as many clips as a step has: random frames, random masks."""
    clips, grid = recipe.train.global_batch, recipe.grid
    draws = np.random.default_rng(0)
    visible: Visible = np.zeros((clips, grid.tokens), np.bool_)
    visible[:, : recipe.record.num_visible(recipe.method, grid)] = True
    return {
        "frames": draws.integers(0, 256, (clips, grid.num_frames, grid.height, grid.width, 3), np.uint8),
        "visible": draws.permuted(visible, axis=1),
        "weight": np.ones(clips, np.float32),
    }


@dataclass
class Found:
    """What repeats found; seconds.

    Attributes:
        step: a step with no checkpoint under way.
        stall: what the loop's calls for one checkpoint took.
        beside: what the steps took longer, in all, that a checkpoint was written beside.
        begun: the part of `ours` in which the training would wait.
        ours: from the beginning of a checkpoint to its manifest, with no training beside.
        saved: `torch.save` of the same values.
        disk: the same bytes written and synced.
    """

    step: list[float] = field(default_factory=list)
    stall: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    saved: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)


def measure(asked: Asked) -> Sequence[Line]:
    """Measure checkpoints of the smoke recipe's model, and how fast those of ViT-B are written."""
    with threads(1):
        smoke = load_recipe(RECIPES / "smoke.yaml", ["engine.name=torch", *(TINY if asked.short else ())])
        rank = Rank(smoke)
        found = _repeated(rank, Path(asked.scratch) / "smoke", asked.repeats)
        made = [*training_lines(found), *writing_lines("smoke", found, num_bytes(rank.engine.fragments()))]
        del rank
        if not asked.short:
            large = Stored(load_recipe(RECIPES / "videomae-vitb-k400.yaml", ["engine.name=torch"]))
            found = Found()
            for number in range(3):
                _write(large.fragments, large.shapes, Path(asked.scratch) / f"base-{number}", found)
            made += [large_line(found), *writing_lines("ViT-B", found, num_bytes(large.fragments()))]
    return made


class Stored:
    """A model's weights with moments that no step has changed: what a checkpoint of it holds."""

    def __init__(self, recipe: Recipe) -> None:
        self._engine = TorchEngine(build_model(recipe, torch.device("cpu")), recipe.train, recipe.engine)
        self.shapes = {name: list(param.shape) for name, param in self._engine.module.named_parameters()}

    def fragments(self) -> list[Fragment]:
        """Return the pieces that one rank owns."""
        return self._engine.fragments()


def num_bytes(fragments: Sequence[Fragment]) -> int:
    """Return the bytes of the values of fragments."""
    return sum(part.values.numel() * part.values.element_size() for part in fragments)


class Kept:
    """Checkpoints in a folder, as in a run of one rank.

    Args:
        shapes: of the parameters.
        fragments: returns what the rank owns.
        run: the folder.
    """

    def __init__(self, shapes: dict[str, list[int]], fragments: Callable[[], list[Fragment]], run: Path) -> None:
        facts = RunFacts(str(run), shapes, {"seed": 0}, SLOTS, Made(1, 0))
        self.keeper = Keeper(facts, CheckpointSection(keep=2), fragments, Books(), None)
        self._at = 0

    def begin(self, steps: int = 1) -> None:
        """Begin a checkpoint so many steps after the last one."""
        span = Span(self._at, np.ones((steps, 4), np.uint64))
        self._at += steps
        self.keeper.begin(Progress(self._at, updates=self._at), span)

    def write(self) -> float:
        """Make a checkpoint, wait for it, and return the seconds in which the training could not have gone on."""
        begun_s = _timed(self.begin)
        self.keeper.finish()
        return begun_s


def _repeated(rank: Rank, run: Path, repeats: int) -> Found:
    found, kept = Found(), Kept(rank.shapes, rank.engine.fragments, run)
    rank.step()
    kept.keeper.written()  # as after every step: memory is taken after the first one
    for number in range(repeats):
        alone = [_timed(rank.step) for _ in range(STEPS)]
        found.step.append(median(alone))
        stall, beside = _one(rank, kept)
        found.stall.append(stall)
        found.beside.append(sum(beside) - len(beside) * median(alone))
        kept.keeper.finish()
        _write(rank.engine.fragments, rank.shapes, run.with_name(f"writes-{number}"), found)
    return found


def _one(rank: Rank, kept: Kept) -> tuple[float, list[float]]:
    """Make a checkpoint as the loop does; return the seconds of its calls, and of each step until it was written."""
    stall, done = _timed(kept.begin), False
    steps: list[float] = []
    while not done and len(steps) < MOST_STEPS:
        steps.append(_timed(rank.step))
        began = time.perf_counter()
        done = kept.keeper.written()
        if done:
            kept.keeper.commit()
        stall += time.perf_counter() - began
    if not done:
        raise SystemFault(f"a checkpoint was not written after {MOST_STEPS} steps")
    return stall, steps


def _write(fragments: Callable[[], list[Fragment]], shapes: dict[str, list[int]], folder: Path, found: Found) -> None:
    """Write the same values in the three ways, in turn."""
    kept = Kept(shapes, fragments, folder)
    kept.write()  # memory is touched for the first time
    ways = [
        (found.ours, lambda: found.begun.append(kept.write())),
        (found.saved, lambda: save(fragments(), folder)),
        (found.disk, lambda: _raw(fragments(), folder)),
    ]
    for seconds, way in ways if len(found.ours) % 2 == 0 else reversed(ways):
        seconds.append(_timed(way))
    shutil.rmtree(folder)  # gigabytes, in memory where the scratch folder is


def save(fragments: Sequence[Fragment], folder: Path) -> Path:
    """Write values as most scripts do: `torch.save` of a dictionary, while the training waits."""
    path = folder / "checkpoint.pt"
    torch.save({f"{part.state}/{part.name}": part.values for part in fragments}, path)
    return path


def _raw(fragments: Sequence[Fragment], folder: Path) -> None:
    with (folder / "raw").open("wb", buffering=0) as file:
        for part in fragments:
            file.write(part.values.detach().contiguous().numpy().data)
        os.fsync(file.fileno())


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def training_lines(found: Found) -> list[Line]:
    """Return what a checkpoint costs the training, in hundredths of a step."""
    steps = [100 / seconds for seconds in found.step]
    stall = Measured(tuple(each * scale for each, scale in zip(found.stall, steps, strict=True)))
    saved = Measured(tuple(each * scale for each, scale in zip(found.saved, steps, strict=True)))
    step_s = f"a step of the smoke recipe on one rank and one thread: {median(found.step):.2f} s"
    return [
        Line(
            "checkpoint",
            "stall",
            "% of a step",
            stall.median,
            saved.median,
            targets=(Target("at_most", 5),),
            more=False,
            repeats=len(found.stall),
            spread=stall.spread,
            says=f"all that the loop waits for; torch.save of the whole state, while it waits; {step_s}",
        ),
        Line(
            "checkpoint",
            "steps beside it",
            "% of a step",
            median(each * scale for each, scale in zip(found.beside, steps, strict=True)),
            more=False,
            repeats=len(found.beside),
            says="how much longer the steps took, in all, beside which it was written; noise may be below 0",
        ),
    ]


def large_line(found: Found) -> Line:
    """Return what a checkpoint of ViT-B makes the training wait."""
    begun = Measured(tuple(found.begun))
    return Line(
        "checkpoint",
        "stall, ViT-B",
        "s",
        begun.median,
        median(found.saved),
        more=False,
        repeats=len(found.begun),
        spread=begun.spread,
        says="weights and moments of one rank, copied to memory that is there; torch.save of them",
    )


def writing_lines(name: str, found: Found, size: int) -> list[Line]:
    """Return how fast checkpoints of so many bytes are written."""
    rates = Measured(tuple(size / seconds / 1e6 for seconds in found.ours))
    return [
        Line(
            "checkpoint",
            f"written, {name}",
            "MB/s",
            rates.median,
            size / median(found.saved) / 1e6,
            size / median(found.disk) / 1e6,
            repeats=len(found.ours),
            spread=rates.spread,
            says=f"{size / 1e6:.0f} MB in {median(found.ours):.2f} s, copied, checked, synced and committed; torch.save"
            " does not sync; the limit writes the bytes and syncs",
        )
    ]
