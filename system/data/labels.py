"""The label of each video: from the index, from a list of `path label`, or from the names of folders.

One place for all jobs that need labels. What does not fit is refused before any work, all of it at once, each problem
with its count and three examples. Labels are texts; `class_names` puts them in an order and so gives them numbers.

A line of a list names a video by its URI, by its name in the index, or by any path of which one is an ending of the
other, folder by folder: `/data/k400/train/abseiling/x.mp4` and `abseiling/x.mp4` are the same video.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from system import storage
from system.data.index import Index, read_rejected
from system.errors import DataError

# Sources of labels that are no list.
IN_INDEX, FOLDERS = "index", "folder"
EXAMPLES = 3
# In the table of endings: more than one video ends so.
_SEVERAL = -1


@dataclass(frozen=True, slots=True)
class Labelled:
    """Videos of an index and their labels.

    Attributes:
        ids: (n,) int64, ascending.
        labels: one for each video.
        left_out: videos of the index that the list does not name, where that is allowed.
        rejected: lines of the list whose video the index rejects as unreadable.
        unreadable: places in the index's list of rejected files of those that the list names; None: all of them count.
        lost: labels of files that the index rejects, as far as a list or their folders say them.
    """

    ids: NDArray[np.int64]
    labels: tuple[str, ...]
    left_out: int = 0
    rejected: int = 0
    unreadable: tuple[int, ...] | None = None
    lost: tuple[str, ...] = ()


def examples(names: Iterable[str]) -> str:
    """Write the first three names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - EXAMPLES} more" if len(listed) > EXAMPLES else ""
    return ", ".join(listed[:EXAMPLES]) + more


def labelled(index: Index, source: str = IN_INDEX, *, only_listed: bool = False) -> Labelled:
    """Return the labels of an index's videos.

    Args:
        index: of the videos.
        source: `index` for its column `label`, `folder` for the name of the folder that a video lies in, or the URI of
            a list.
        only_listed: leave out videos that a list does not name, for a list of one part of a dataset.

    Raises:
        DataError: if a video has no label, a list names videos that are not there, or the same one twice.
    """
    if source in (IN_INDEX, FOLDERS):
        return _of_all(index, source)
    return _of_list(index, source, only_listed=only_listed)


def labels_uri(source: str) -> str:
    """Return a source of labels as every process understands it."""
    return source if source in (IN_INDEX, FOLDERS) else storage.absolute(source)


def known_labels(index: Index) -> list[str | None]:
    """Return what the index says of each video's label; None where it says nothing."""
    return [label or None for label in index.texts("label")]


def _of_all(index: Index, source: str) -> Labelled:
    names = [str(name) for name in index.texts("name")]
    lost: list[str] = []
    if source == FOLDERS:
        found: Sequence[str | None] = [folder_of(name) for name in names]
        lost = [label for bad in read_rejected(index.uri) if (label := folder_of(bad.name))]
        advice = "they lie in no folder below what was indexed; put each video into a folder named by its class"
    else:
        found = known_labels(index)
        advice = "index with `python -m jobs.index --labels folder`, or name a list of `path label` or `folder`"
    without = [name for name, label in zip(names, found, strict=True) if label is None]
    if without:
        raise DataError(
            f"{index.uri}: {len(without)} of {len(names)} videos have no label: {examples(without)}; {advice}"
        )
    return Labelled(np.arange(len(names)), tuple(str(label) for label in found), lost=tuple(lost))


def folder_of(name: str) -> str | None:
    """Return the label that a video's folder is; None if it lies in none below what was indexed."""
    return PurePosixPath(name).parent.name or None


def read_list(uri: str) -> list[tuple[str, str]]:
    """Return the (path, label) of each line of a list.

    A line is a path, then a tab, a comma or spaces, then the label: whichever of the three every line has, in this
    order. A header `path label` is passed over, and so are empty lines.

    Raises:
        DataError: if there is no such list, it is empty, or lines have no label.
    """
    try:
        text = storage.read(uri).decode("utf-8-sig")
    except storage.MissingError as error:
        raise DataError(f"{uri}: there is no such list of labels") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{uri} is no text in UTF-8, which a list of `path label` is") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DataError(f"{uri}: the list of labels is empty; a line is `path label`")
    between = next((mark for mark in ("\t", ",") if all(mark in line for _, line in lines)), None)
    pairs = [(number, _cut(line, between)) for number, line in lines]
    bad = [f"line {number}" for number, (path, label) in pairs if not path or not label]
    if bad:
        raise DataError(f"{uri}: {len(bad)} of {len(lines)} lines have no label: {examples(bad)}; one is `path label`")
    found = [pair for _, pair in pairs]
    return (
        found[1:] if found[0][0].lower() in ("path", "video") and found[0][1].lower() in ("label", "class") else found
    )


def _cut(line: str, between: str | None) -> tuple[str, str]:
    parts = [part.strip().strip('"') for part in line.rsplit(between, 1)]
    return (parts[0], parts[1]) if len(parts) == 2 else (parts[0], "")


class _Names:
    """Finds videos by a path that a list gives."""

    def __init__(self, names: Sequence[str], uris: Sequence[str]) -> None:
        self._whole = {name: number for number, name in enumerate(names)}
        self._endings: dict[str, int] = {}
        for number, name in enumerate(names):
            for ending in _endings(name)[1:]:
                self._endings[ending] = number if ending not in self._endings else _SEVERAL
        # A shard holds several videos, so its URI is none's.
        for number, uri in enumerate(uris):
            self._whole[uri] = number if uri not in self._whole or self._whole[uri] == number else _SEVERAL

    def find(self, path: str) -> int | None:
        """Return a video's number, None if there is none; `_SEVERAL` if it could be more than one."""
        endings = _endings(path)
        whole = next((ending for ending in endings if ending in self._whole), None)
        return self._endings.get(endings[0]) if whole is None else self._whole[whole]


def _endings(path: str) -> list[str]:
    """Return a path and what is left of it when folders are taken off its front, the longest first."""
    bare = path.removeprefix("./")
    parts = bare.split("/")
    return [bare, *("/".join(parts[first:]) for first in range(1, len(parts)))]


def _of_list(index: Index, uri: str, *, only_listed: bool) -> Labelled:
    names = [str(name) for name in index.texts("name")]
    finder = _Names(names, [str(each) for each in index.texts("uri")])
    found: dict[int, str] = {}
    absent: dict[str, str] = {}
    unclear, twice = [], []
    for path, label in read_list(uri):
        video = finder.find(path)
        if video is None:
            absent[path] = label
        elif video == _SEVERAL:
            unclear.append(path)
        elif found.setdefault(video, label) != label:
            twice.append(f"{path} ({found[video]} and {label})")
    bad = _Names([each.name for each in read_rejected(index.uri)], ())
    found_bad = {path: bad.find(path) for path in absent}
    missing = [path for path in absent if found_bad[path] is None]
    without = [name for number, name in enumerate(names) if number not in found]
    problems = [
        f"{len(which)} {says}: {examples(which)}"
        for which, says in (
            (missing, "videos of the list are not in the index; add them and index again, or take their lines out"),
            (unclear, "lines could mean several videos; write more of the path"),
            (twice, "videos have two labels; take one out"),
            (
                [] if only_listed else without,
                f"of {len(names)} videos of the index are not in the list; complete it, or say --only-listed (in a"
                " recipe method.only_listed=true) to leave them out",
            ),
        )
        if which
    ]
    if not problems and not found:
        problems = ["none of its videos is in the index"]
    if problems:
        raise DataError(f"{uri} does not fit {index.uri}:\n  " + "\n  ".join(problems))
    ids = sorted(found)
    unreadable = tuple(sorted({number for number in found_bad.values() if number is not None and number != _SEVERAL}))
    return Labelled(
        np.array(ids, np.int64),
        tuple(found[number] for number in ids),
        len(without),
        len(absent),
        unreadable if only_listed else None,
        tuple(absent.values()),
    )


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the classes in their order: by number if all labels are whole numbers, else as texts."""
    names = set(labels)
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names))


def class_numbers(labels: Sequence[str], classes: Sequence[str], where: str, known: str) -> NDArray[np.int64]:
    """Return the number of each label.

    Args:
        labels: of videos.
        classes: that there are.
        where: the labels come from, for messages.
        known: where the classes come from, for messages.

    Raises:
        DataError: if a label is none of the classes.
    """
    number_of = {name: number for number, name in enumerate(classes)}
    strange = sorted({label for label in labels if label not in number_of})
    if strange:
        videos = sum(label in set(strange) for label in labels)
        raise DataError(
            f"{where}: {len(strange)} classes of {videos} videos are none of the {len(classes)} classes of {known}:"
            f" {examples(strange)}; those are {examples(classes)}"
        )
    return np.array([number_of[label] for label in labels], np.int64)
