"""The folder of features: Parquet files of some videos each, and a manifest that says what they are.

    manifest.json            identity (what the numbers depend on), then counts; `complete` when every part is there
    parts/part-00000.parquet the videos [0, P) of those that were asked for, and so on

A part's name follows from the videos in it and its file appears whole, so the same command again makes only the parts
that are missing. A folder of another identity is refused.

V views of a video, F' features of a view, Q kept tokens of a view, D their width.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from system import storage
from system.data.columns import Batch
from system.data.index import Index
from system.data.stages import MANY
from system.errors import DataError, ResumeError, StorageFault
from system.evaluate.frozen import Extraction
from system.evaluate.part_tables import flat, parquet, part_table

MANIFEST = "manifest.json"
PARTS = "parts"
# A part is held in memory until it is whole, and is one object: neither huge nor one of a million.
PART_BYTES = 32 << 20
PART_VIDEOS = 2048
# Videos that were not read whole, of which a manifest says the name and the reason.
NAMED = 20


@dataclass(frozen=True, slots=True)
class PartPlan:
    """Which videos lie in which part.

    Attributes:
        ids: (n,) int64, the videos that were asked for, ascending.
        part_videos: P, videos of a part but for the last one.
    """

    ids: NDArray[np.int64]
    part_videos: int

    @property
    def count(self) -> int:
        """Number of parts."""
        return -(-len(self.ids) // self.part_videos)

    def videos(self, part: int) -> NDArray[np.int64]:
        """Return the videos of a part."""
        return self.ids[part * self.part_videos : (part + 1) * self.part_videos]

    def part_of(self, video: int) -> int:
        """Return the part that a video lies in."""
        return int(np.searchsorted(self.ids, video)) // self.part_videos


def plan_parts(ids: NDArray[np.int64], work: Extraction) -> PartPlan:
    """Cut videos into parts."""
    tokens, width = work.tokens_shape
    row = 4 * work.width + (work.views.count * (4 * work.width + 2 * tokens * width) if work.keep_views else 0)
    return PartPlan(ids, max(1, min(PART_VIDEOS, PART_BYTES // row)))


def part_uri(out: str, part: int) -> str:
    """Return where a part lies."""
    return storage.join(out, PARTS, f"part-{part:05d}.parquet")


def missing_parts(out: str, plan: PartPlan) -> list[int]:
    """Return the parts that are not there."""
    listed = storage.list_objects(storage.join(out, PARTS), missing_ok=True)
    there = {each.uri.rpartition("/")[2] for each in listed}
    return [part for part in range(plan.count) if part_uri(out, part).rpartition("/")[2] not in there]


def read_manifest(out: str) -> dict[str, Any] | None:
    """Return a folder's manifest, None if there is none."""
    try:
        found: dict[str, Any] = json.loads(storage.read(storage.join(out, MANIFEST)))
    except storage.MissingError:
        return None
    return found


def open_folder(out: str, manifest: Mapping[str, Any]) -> None:
    """Begin a folder of features, or see that what lies there has the same identity.

    Raises:
        ResumeError: if it has not; names what differs.
    """
    old = read_manifest(out)
    if old is None:
        storage.write(storage.join(out, MANIFEST), json.dumps(manifest, indent=1).encode())
        return
    was, now = _identity(old), manifest["identity"]
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    differs = [f"{name}: there {was.get(name)!r}, now {now.get(name)!r}" for name in names]
    if differs:
        raise ResumeError(
            f"{out} holds features of something else; name another --out, or delete it:\n  " + "\n  ".join(differs)
        )


def _identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a folder's features are of; those of before the decoder was said there have it in their recipe."""
    decoder = manifest.get("recipe", {}).get("data", {}).get("decoder", "auto")
    return {**({"decoder": decoder} if decoder != "auto" else {}), **manifest.get("identity", {})}


def close_folder(out: str, manifest: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of a whole folder and return it."""
    whole = {**manifest, "complete": True, **counts}
    storage.write(storage.join(out, MANIFEST), json.dumps(whole, indent=1).encode())
    return whole


@dataclass(slots=True)
class Collector:
    """Gathers rows until a part is whole, and writes it.

    Attributes:
        out: the folder.
        plan: of its parts.
        work: what the rows are.
        index: of the videos.
        labels: of the videos, in the order of the plan's; None where there is none.
    """

    out: str
    plan: PartPlan
    work: Extraction
    index: Index
    labels: Sequence[str | None]
    _waiting: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)

    def add(self, batch: Batch) -> list[int]:
        """Take rows of the columns that `Featurizer` gives; return the parts that were written for it.

        Raises:
            StorageFault: if not one video of a part is there: that says nothing about the videos.
        """
        written = []
        for row, video in enumerate(batch["video_id"].tolist()):
            part = self.plan.part_of(video)
            rows = self._waiting.setdefault(part, {})
            rows[video] = {
                name: values[row].copy() if name != "error" else values[row] for name, values in batch.items()
            }
            if len(rows) == len(self.plan.videos(part)):
                self._write(part)
                written.append(part)
        return written

    def _write(self, part: int) -> None:
        rows, ids = self._waiting.pop(part), self.plan.videos(part).tolist()
        if len(ids) >= MANY and all(row["error"].startswith("storage:") for row in rows.values()):
            raise StorageFault(
                f"all {len(ids)} videos of a part are gone; is the storage mounted here? {rows[ids[0]]['error']}"
            )
        first = part * self.plan.part_videos
        table = part_table(
            [rows[video] for video in ids],
            [self.index.row(video) for video in ids],
            self.labels[first : first + len(ids)],
            self.work,
        )
        storage.write(part_uri(self.out, part), parquet(table))


def part_columns(out: str, plan: PartPlan, names: Sequence[str]) -> Iterator[pa.Table]:
    """Yield columns of each part, in their order.

    Raises:
        DataError: if a part is not there, or is none.
    """
    for part in range(plan.count):
        uri = part_uri(out, part)
        try:
            yield pq.read_table(io.BytesIO(storage.read(uri)), columns=list(names))
        except (storage.MissingError, pa.ArrowInvalid, KeyError) as error:
            raise DataError(f"{uri} is not there or no part of features; delete it and run the same again") from error


def check_once(out: str, plan: PartPlan, ids: Sequence[int]) -> None:
    """Refuse parts that hold other videos than they should.

    Raises:
        DataError: if the parts do not hold each video once.
    """
    if ids != plan.ids.tolist():
        raise DataError(f"{out}: the parts hold {len(ids)} videos, not each of {len(plan.ids)} once; delete {PARTS}")


def counts_of(out: str, plan: PartPlan) -> dict[str, Any]:
    """Count what the parts hold: videos, those seen whole, in part and not at all, and the reasons by their first word.

    Raises:
        DataError: if the parts do not hold each video once.
    """
    ids: list[int] = []
    failed, partly = 0, 0
    reasons: dict[str, int] = {}
    examples: list[dict[str, str]] = []
    for table in part_columns(out, plan, ("video_id", "name", "views", "error")):
        for row in table.to_pylist():
            ids.append(row["video_id"])
            if row["error"] is not None:
                failed += row["views"] == 0
                partly += row["views"] > 0
                word = row["error"].partition(":")[0]
                reasons[word] = reasons.get(word, 0) + 1
                examples += [{"name": row["name"], "error": row["error"]}] if len(examples) < NAMED else []
    check_once(out, plan, ids)
    return {"videos": len(ids), "failed": failed, "partly_read": partly, "reasons": reasons, "examples": examples}


@dataclass(frozen=True, slots=True)
class KeptViews:
    """What a folder keeps of each view, of all its videos in their order.

    Attributes:
        features: (n, V, F') float32.
        seen: (n, V) bool.
        tokens: (n, V, Q, D) float16; Q is 0 where none are kept.
    """

    features: NDArray[np.float32]
    seen: NDArray[np.bool_]
    tokens: NDArray[np.float16]


def read_views(out: str, plan: PartPlan, work: Extraction) -> KeptViews:
    """Read what a whole folder keeps of each view.

    Raises:
        DataError: if a part is not there.
    """
    count, views = len(plan.ids), work.views.count
    kept = KeptViews(
        np.empty((count, views, work.width), np.float32),
        np.empty((count, views), bool),
        np.empty((count, views, *work.tokens_shape), np.float16),
    )
    columns = {work.names[1]: kept.features, "seen": kept.seen, **({"tokens": kept.tokens} if work.tokens_side else {})}
    at = 0
    for table in part_columns(out, plan, list(columns)):
        for name, into in columns.items():
            into[at : at + len(table)] = flat(table, name).reshape(len(table), *into.shape[1:])
        at += len(table)
    return kept
