"""Probes the checkpoints of a run that goes on: weights in, scores out, as jobs/probe.py computes them. No Ray.

Frames of the two sets are decoded once and kept in a file without a name, so they take no memory that others want and
are gone with the process.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from system import storage
from system.data.columns import Batch
from system.data.dataset import run_uri
from system.data.index import Index
from system.data.viewing import ViewDecoder, ViewReader
from system.errors import DataError
from system.evaluate.encoders import encoder_digest, load_encoder
from system.evaluate.extract import blocks_of
from system.evaluate.frozen import Extraction, Featurizer
from system.evaluate.labelled_sets import Side, Sides
from system.evaluate.probe_sets import fit_probes
from system.evaluate.probes import LabelledViews
from system.models.encoder import Encoder
from system.recipe import Recipe
from system.train.manifest import MANIFEST, step_uri
from system.train.probed import scores_of

LOWEST = 19
# Deadlines of decoding count the time of a wall's clock, and with the lowest priority a second of work takes many.
PATIENCE = 20


def humble(threads: int) -> None:
    """Give this process what the others leave, and torch so many threads in the calling one.

    All threads that there are get the lowest priority; those that they start, and their children, have it too.
    """
    torch.set_num_threads(threads)
    threads_of_this = Path("/proc/self/task")
    if threads_of_this.is_dir():
        for thread in threads_of_this.iterdir():
            with suppress(OSError):  # it has ended
                os.setpriority(os.PRIO_PROCESS, int(thread.name), LOWEST)
    else:
        os.setpriority(os.PRIO_PROCESS, 0, LOWEST)


@dataclass(frozen=True)
class _Kept:
    """The decoded views of a set, block by block, and how many of its videos gave nothing."""

    blocks: Sequence[Batch]
    failed: int


@dataclass(frozen=True)
class _Held:
    """A checkpoint's encoder, in host memory, and the manifest that it was read by."""

    step: int
    encoder: Encoder
    digest: str
    manifest: bytes | None


def patient(recipe: Recipe) -> Recipe:
    """Return a recipe whose decode children may wait long for their turn, and work no longer than before."""
    data = recipe.data
    limits = {"deadline_s": PATIENCE * data.deadline_s, "child_cpu_s": data.child_cpu_s or data.deadline_s}
    return recipe.model_copy(update={"data": data.model_copy(update=limits)})


class Prober:
    """Probes one checkpoint after the other.

    Args:
        recipe: of the run.
        sides: the videos.
        device: of the encoder, `cpu` or `cuda`.
    """

    def __init__(self, recipe: Recipe, sides: Sides, device: str) -> None:
        section = recipe.probe
        self._run, self._sides, self._device = run_uri(recipe), sides, device
        self._kinds = section.kinds
        self._work = Extraction(
            patient(recipe),
            "",
            sides.train.views,
            section.pool,
            precision="bf16" if device == "cuda" else "fp32",
            keep_views=True,
        )
        self._kept: dict[str, _Kept] = {}
        self._held: _Held | None = None

    def hold(self, step: int) -> None:
        """Read the weights of a checkpoint into memory: it may be deleted before its turn comes.

        Raises:
            WeightsError: if they cannot be read.
        """
        self._held = self._read(step)

    def _read(self, step: int) -> _Held:
        manifest = self._manifest(step)
        encoder = load_encoder(self._work.recipe, step_uri(self._run, step))
        return _Held(step, encoder, encoder_digest(encoder), manifest)

    def _manifest(self, step: int) -> bytes | None:
        try:
            return storage.read(storage.join(step_uri(self._run, step), MANIFEST))
        except storage.MissingError:
            return None

    def _taken(self, step: int) -> _Held:
        """Return a checkpoint's encoder; not the one that is held if the trainers went back and wrote it anew."""
        held = self._held  # once: another thread may hold the next checkpoint meanwhile
        if held is not None and held.step == step and self._manifest(step) in (None, held.manifest):
            return held
        return self._read(step)

    def measured(self) -> str:
        """Return the digest of what the scores depend on but for the weights: sets, views, features, probes."""
        work, told = self._work, hashlib.sha256()
        told.update(repr((work.pool, work.precision, sorted(self._kinds), self._sides.classes)).encode())
        for side in (self._sides.train, self._sides.test):
            told.update(f"{side.name} {Index(side.index_uri).fingerprint} {side.views}".encode())
            for numbers in (side.ids, side.labels, side.lost):
                told.update(np.ascontiguousarray(numbers, np.int64).tobytes())
        return told.hexdigest()

    def probe(self, step: int, known: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Return what frozen features of a checkpoint know of the labels: a row of probe.jsonl.

        Args:
            step: of the checkpoint.
            known: row of this step from before; None is returned if weights, sets and probes are the same.

        Raises:
            WeightsError: if the checkpoint cannot be read.
            DataError: if too many of the videos cannot be.
        """
        began, cpu = time.monotonic(), _cpu_s()
        held = self._taken(step)
        depends = {"weights_sha256": held.digest, "measured_sha256": self.measured()}
        if known is not None and all(known.get(name) == value for name, value in depends.items()):
            return None
        train, test = self._features(self._sides.train, held), self._features(self._sides.test, held)
        classes = len(self._sides.classes)
        found = fit_probes(self._kinds, train, test, classes, self._work)
        return {
            "step": step,
            "time": time.time(),
            **scores_of(found),
            "probe/seconds": time.monotonic() - began,
            "probe/cpu_s": _cpu_s() - cpu,
            **depends,
            "classes": classes,
            "videos": {side.name: len(side.ids) for side in (self._sides.train, self._sides.test)},
            "rejected": len(self._sides.test.lost),
            "failed": {name: kept.failed for name, kept in self._kept.items()},
            "probes": found,
        }

    def _features(self, side: Side, held: _Held) -> LabelledViews:
        if side.name not in self._kept:
            self._kept[side.name] = self._decoded(side)
        featurize = Featurizer(replace(self._work, views=side.views), held.encoder, self._device)
        found = [featurize(block) for block in self._kept[side.name].blocks]
        features, seen = (np.concatenate([each[name] for each in found]) for name in ("features", "seen"))
        return LabelledViews(features, seen, side.labels, lost=side.lost)

    def _decoded(self, side: Side) -> _Kept:
        """Decode a set and keep its frames in a file."""
        blocks: list[Batch] = []
        counts: list[tuple[int, ...]] = []
        with tempfile.TemporaryFile(prefix="tubelet-probe-") as file:
            for batch in self._decode(side):
                frames = batch.pop("frames")
                file.write(np.ascontiguousarray(frames).data)
                blocks.append(batch)
                counts.append(frames.shape)
            file.flush()
            whole = (len(side.ids), *counts[0][1:])
            kept = np.asarray(np.memmap(file, np.uint8, "r", shape=whole))
        failed = sum(int((~batch["seen"].any(1)).sum()) for batch in blocks)
        self._refuse_bad(side, blocks, failed)
        firsts = np.cumsum([0, *(shape[0] for shape in counts)])
        for batch, first, last in zip(blocks, firsts, firsts[1:], strict=False):
            batch["frames"] = kept[first:last]
        return _Kept(blocks, failed)

    def _decode(self, side: Side) -> Iterator[Batch]:
        work, index = replace(self._work, views=side.views), Index(side.index_uri)
        read, decode = ViewReader(index, work.spec), ViewDecoder(index, work.spec)
        with closing(decode):
            for block in blocks_of(work, side.ids):
                yield decode(read({"video_id": block}))

    def _refuse_bad(self, side: Side, blocks: Sequence[Batch], failed: int) -> None:
        most = self._work.recipe.data.max_bad_ratio
        if failed > most * len(side.ids):
            reasons = [str(error) for batch in blocks for error in batch["error"] if error]
            raise DataError(
                f"{failed} of the {len(side.ids)} {side.name} videos of the probe cannot be read, more than"
                f" data.max_bad_ratio={most:g}; mend them or raise it. The first: {reasons[0]}"
            )


def _cpu_s() -> float:
    """Return the CPU time of this process and of its children that have ended, seconds."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def write_board(folder: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write TensorBoard's file of all probes of a run into an empty folder, and return its place."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  half a second

    with SummaryWriter(folder) as board:
        for row in rows:
            for name, value in row.items():
                if name.startswith("probe/"):
                    board.add_scalar(name, value, row["step"], walltime=row["time"])
    (path,) = Path(folder).iterdir()
    return path
