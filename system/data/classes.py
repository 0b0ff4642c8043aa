"""The classes and labels of a run, kept in its folder: `classes.json`, and `index.parquet` with its column `label`.

`classes.json` is a list of names; a class's number is its place in it. The run's index has the videos that the run is
trained with and no others, each with its label. Labels are part of its fingerprint, so a checkpoint of a run whose
labels were changed is refused as one of other videos is.

Its videos lie in the order of their names' hashes: folders are often classes, and the plan shuffles neighbours of an
index among each other only (core/plan.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from system import storage
from system.data.index import Index, IndexWriter, Rejected, VideoRow, read_rejected
from system.data.labels import Labelled, examples
from system.errors import DataError, ResumeError

FILE = "classes.json"
# What the writer of an index works out itself.
_DERIVED = ("video_id", "duration_s")


def write_classes(run_uri: str, names: Sequence[str]) -> None:
    """Write the names of a run's classes."""
    storage.write(storage.join(run_uri, FILE), (json.dumps(list(names), indent=1) + "\n").encode())


def has_classes(run_uri: str) -> bool:
    """Say whether a run's folder names classes."""
    return storage.exists(storage.join(run_uri, FILE))


def read_classes(run_uri: str) -> tuple[str, ...]:
    """Return the names of a run's classes in the order of their numbers.

    Raises:
        DataError: if the run has none, or its file is no list of names.
    """
    uri = storage.join(run_uri, FILE)
    try:
        names = json.loads(storage.read(uri))
    except storage.MissingError as error:
        raise DataError(f"{uri} is not there: the run was not fine-tuned, or its folder is incomplete") from error
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{uri} is no JSON list of names, as a run writes it; put back the file that was there, or give a new run"
            " another run.name"
        )
    return tuple(names)


def write_labelled(videos: Index, found: Labelled, uri: str) -> None:
    """Write the index of a run: of the videos' index those that have a label, with it; in an order without classes.

    Of files that cannot be read those are listed that the run would have taken.
    """
    writer = IndexWriter(uri, source_of(videos), labelled=True)
    label_of = dict(zip(found.ids.tolist(), found.labels, strict=True))
    kept = [field.name for field in fields(VideoRow) if field.name not in _DERIVED]
    names = videos.texts("name")
    # By name, since videos that were moved have to stand where they stood.
    order = sorted(label_of, key=lambda video: hashlib.sha256(str(names[video]).encode()).digest())
    for row in videos.rows(np.array(order, np.int64)):
        writer.add({**{name: getattr(row, name) for name in kept}, "label": label_of[row.video_id]})
    for bad in _rejected(videos, found):
        writer.reject(bad)
    writer.close()


def _rejected(videos: Index, found: Labelled) -> list[Rejected]:
    listed = read_rejected(videos.uri)
    return listed if found.unreadable is None else [listed[number] for number in found.unreadable]


def source_of(videos: Index) -> str:
    """Say what a run's index was made of: two that say the same were made of the same videos."""
    return f"{videos.uri} ({videos.fingerprint})"


def check_same_labels(run: str, own: Index, videos: Index, found: Labelled) -> None:
    """Refuse labels that are not those which a run began with.

    Args:
        run: its name.
        own: its index.
        videos: of which it is made.
        found: their labels now.

    Raises:
        ResumeError: with counts and examples.
    """
    names = videos.texts("name")
    now = {str(names[video]): label for video, label in zip(found.ids.tolist(), found.labels, strict=True)}
    before = {str(name): str(label) for name, label in zip(own.texts("name"), own.texts("label"), strict=True)}
    problems = [
        f"{len(which)} {says}: {examples(which)}"
        for which, says in (
            (
                [f"{name} ({old}, now {now[name]})" for name, old in before.items() if now.get(name, old) != old],
                "videos have another label",
            ),
            ([name for name in before if name not in now], f"of its {len(before)} videos have none any more"),
            ([name for name in now if name not in before], "videos are new"),
        )
        if which
    ]
    if problems:
        raise ResumeError(
            f"the run {run} exists with other labels; give the new one another run.name, or take back:\n  "
            + "\n  ".join(problems)
        )
