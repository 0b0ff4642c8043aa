"""Features of videos, or a classifier's answers: what has to be done, done in this process, and the folder. No Ray.

`Rows` is where the work is done: in this process here, in a cluster's actors in feature_stream.py. Both take numbers of
videos and give back the columns of `Featurizer`, in any order, each video once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from system.data.columns import Batch
from system.data.index import Index
from system.data.viewing import ViewDecoder, ViewReader
from system.errors import SystemFault
from system.evaluate.feature_parts import (
    Collector,
    close_folder,
    counts_of,
    missing_parts,
    open_folder,
    plan_parts,
    read_manifest,
)
from system.evaluate.frozen import Extraction, Featurizer, load_network
from system.evaluate.provenance import commit

# Frames of a block: several of them have to fit into a small object store.
BLOCK_BYTES = 32 << 20
BLOCK_VIEWS = 48

# Numbers of videos -> rows.
Rows = Callable[[Extraction, str, NDArray[np.int64]], Iterator[Batch]]
# (videos done, videos in all)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Order:
    """Features that are wanted.

    Attributes:
        work: what is computed of each video.
        index: of the videos.
        ids: those that are wanted, ascending.
        labels: one for each; None where there is none.
        out: folder to fill.
        weights: digest of the network's.
    """

    work: Extraction
    index: Index
    ids: NDArray[np.int64]
    labels: Sequence[str | None]
    out: str
    weights: str


def block_videos(work: Extraction) -> int:
    """Return how many videos make a block."""
    views = min(BLOCK_VIEWS, BLOCK_BYTES // work.spec.view_bytes())
    return max(1, views // work.views.count)


def blocks_of(work: Extraction, ids: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut videos into blocks."""
    size = block_videos(work)
    return [ids[first : first + size] for first in range(0, len(ids), size)]


def local_rows(work: Extraction, index_uri: str, ids: NDArray[np.int64], device: str = "cpu") -> Iterator[Batch]:
    """Yield the features of videos, computed in this process and its decode child."""
    index = Index(index_uri)
    read, decode = ViewReader(index, work.spec), ViewDecoder(index, work.spec)
    with closing(decode):
        decode.start()
        featurize = Featurizer(work, load_network(work), device)
        for block in blocks_of(work, ids):
            yield featurize(decode(read({"video_id": block})))


def identity(order: Order) -> dict[str, Any]:
    """Return what the numbers of a folder depend on, in plain values."""
    work, index = order.work, order.index
    videos = hashlib.sha256(np.ascontiguousarray(order.ids, np.int64).tobytes())
    videos.update("\n".join(label or "" for label in order.labels).encode())
    data = work.recipe.data
    # Said where they are not what they are as a rule, so that folders from before there were they go on.
    classes = {"classes": f"{len(work.classes)}, sha256 {_sha256(work.classes)}"} if work.classes else {}
    decoder = {"decoder": data.decoder} if data.decoder != "auto" else {}
    return {
        "weights_sha256": order.weights,
        "index_fingerprint": index.fingerprint,
        "videos_and_labels": videos.hexdigest(),
        "clip": f"{data.num_frames} frames, stride {data.stride}, {data.size} px",
        "views": str(work.views),
        "pool": work.pool,
        "tokens_side": work.tokens_side,
        "keep_views": work.keep_views,
        "precision": work.precision,
        "part_videos": plan_parts(order.ids, work).part_videos,
        **classes,
        **decoder,
    }


def _sha256(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def manifest_of(order: Order) -> dict[str, Any]:
    """Return the manifest of a folder that is not filled yet."""
    of_view, of_video = order.work.meaning()
    return {
        "format": "tubelet features",
        "version": 1,
        "identity": identity(order),
        order.work.names[1]: of_view,
        order.work.names[0]: of_video,
        "width": order.work.width,
        "weights": order.work.weights,
        "index": order.index.uri,
        "rejected_by_the_index": order.index.num_rejected,
        "commit": commit(),
        "recipe": order.work.recipe.model_dump(mode="json"),
        "complete": False,
    }


def extract(order: Order, rows: Rows, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Fill a folder with the features of videos, or what is missing of it; return its manifest.

    Raises:
        ResumeError: if the folder holds something else.
        SystemFault: if videos did not come back.
    """
    plan, manifest = plan_parts(order.ids, order.work), manifest_of(order)
    open_folder(order.out, manifest)
    missing = missing_parts(order.out, plan)
    old = read_manifest(order.out)
    if not missing and old is not None and old["complete"]:
        return old
    collector = Collector(order.out, plan, order.work, order.index, order.labels)
    wanted = np.concatenate([np.empty(0, np.int64), *(plan.videos(part) for part in missing)])
    done = len(plan.ids) - len(wanted)
    progress(done, len(plan.ids))
    left = set(missing)
    for batch in rows(order.work, order.index.uri, wanted) if len(wanted) else ():
        left.difference_update(collector.add(batch))
        done += len(batch["video_id"])
        progress(done, len(plan.ids))
    if left:
        raise SystemFault(f"{len(left)} parts of {order.out} miss videos; run the same command again")
    return close_folder(order.out, manifest, counts_of(order.out, plan))
