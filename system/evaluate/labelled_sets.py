"""Two sets of labelled videos, to learn from and to test on: checked against each other, and small ones of large ones.

No torch: a driver looks at labels before a run. Which videos a small set has follows from the names of the videos
alone, so it is the same in every job, and nearly the same when videos are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from system import storage
from system.config import ProbeSection
from system.core.views import Views
from system.data.dataset import readable_index, run_uri
from system.data.index import Index
from system.data.labels import FOLDERS, IN_INDEX, Labelled, class_names, class_numbers, examples, labelled, labels_uri
from system.errors import DataError, RecipeError
from system.recipe import Recipe

Say = Callable[[str], None]
# Index of a probe's videos that have none, in the run's folder.
OWN_INDEX = "probe.{name}.index.parquet"


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """One of the two sets.

    Attributes:
        name: `train` or `test`.
        index: of its videos.
        found: those with labels.
        where: the labels come from, for messages.
        views: that are looked at.
    """

    name: str
    index: Index
    found: Labelled
    where: str
    views: Views


def check_sets(train: LabelledSet, test: LabelledSet) -> tuple[str, ...]:
    """Refuse sets that do not fit each other; return the classes.

    Raises:
        DataError: if a video is in both, test labels are unknown to the training set, or there is one class only.
    """
    both = _shared(train, test)
    if both:
        raise DataError(f"{len(both)} videos are in both sets: {examples(both)}; give each set its own videos or list")
    classes = class_names(train.found.labels)
    if len(classes) < 2:
        raise DataError(
            f"{train.where}: a probe tells classes apart, and all {len(train.found.labels)} are {classes[0]}; give"
            " labels of two classes or more"
        )
    class_numbers(test.found.labels, classes, test.where, train.where)
    return classes


def _shared(train: LabelledSet, test: LabelledSet) -> list[str]:
    """Return the names of the videos that are in both sets: the same bytes of the same object."""

    def places(each: LabelledSet) -> list[tuple[str, int]]:
        found = each.index.places(each.found.ids)
        return list(zip(found.uris.tolist(), found.starts.tolist(), strict=True))

    known = set(places(train))
    again = [int(video) for video, place in zip(test.found.ids, places(test), strict=True) if place in known]
    return list(test.index.names(again).values())


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sets as it travels to who computes its features.

    Attributes:
        name: `train` or `test`.
        index_uri: of its videos.
        ids: (n,) int64, ascending.
        labels: (n,) int64, numbers of classes.
        views: that are looked at.
        lost: numbers of the classes of files that the index rejects, where they are scored: those of a test set of its
            own of which every video is taken.
    """

    name: str
    index_uri: str
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    views: Views
    lost: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Sides:
    """What a run's checkpoints are probed with.

    Attributes:
        train: to learn from.
        test: to test on.
        classes: their names.
    """

    train: Side
    test: Side
    classes: tuple[str, ...]


def labelled_set(
    name: str, index: Index, source: str | None, views: Views, *, only_listed: bool = False
) -> LabelledSet:
    """Return a set of all videos of an index that have labels.

    Raises:
        DataError: if the labels do not cover the videos, or name others.
    """
    source = labels_uri(source or IN_INDEX)
    where = index.uri if source in (IN_INDEX, FOLDERS) else source
    return LabelledSet(name, index, labelled(index, source, only_listed=only_listed), where, views)


def views_of(text: str, sampling: str) -> Views:
    """Return the views that CLIPSxCROPS means."""
    clips, crops = map(int, text.split("x"))
    return Views("segments" if sampling == "segments" else "dense", clips, crops)


def online_sides(recipe: Recipe, say: Say) -> Sides:
    """Return what a run's checkpoints are probed with; makes an index in the run's folder where there is none.

    Raises:
        DataError: if there are no videos, too many files are none, labels do not fit, or classes have too few videos.
        RecipeError: if `probe.videos` are fewer than the classes.
    """
    section, folder = recipe.probe, run_uri(recipe)
    assert section.uri is not None
    first, second = (views_of(text, section.sampling) for text in (section.views, section.test_views))
    index = readable_index(recipe, section.uri, storage.join(folder, OWN_INDEX.format(name="train")), say)
    train = labelled_set("train", index, section.labels, first, only_listed=section.only_listed)
    if section.test_uri is None:
        learnt, tested = held_out(train, section.test_share)
        train, test = replace(train, found=learnt), replace(train, name="test", found=tested, views=second)
    else:
        index = readable_index(recipe, section.test_uri, storage.join(folder, OWN_INDEX.format(name="test")), say)
        source = section.test_labels or section.labels
        test = labelled_set("test", index, source, second, only_listed=section.only_listed)
    classes = check_sets(train, test)
    _check_count(section, len(classes), train.where)
    other = _side(test, classes, section.videos)
    if section.test_uri is not None and len(other.ids) == len(test.found.ids):
        other = replace(other, lost=class_numbers(test.found.lost, classes, test.where, train.where))
    return Sides(_side(train, classes, section.videos), other, classes)


def _check_count(section: ProbeSection, classes: int, where: str) -> None:
    if section.videos < classes:
        raise RecipeError(
            f"probe.videos={section.videos} leaves some of the {classes} classes of {where} without a video to learn"
            f" from; use {classes} or more"
        )


def _side(each: LabelledSet, classes: tuple[str, ...], most: int) -> Side:
    found = few_of(each.found, each.index, most)
    numbers = class_numbers(found.labels, classes, each.where, "the training videos")
    return Side(each.name, each.index.uri, found.ids, numbers, each.views)


def _by_class(found: Labelled, index: Index) -> list[list[int]]:
    """Return the places of each class's videos in a set, in an order that follows from their names."""
    names = index.names(found.ids.tolist())
    rank = {place: hashlib.sha256(names[int(video)].encode()).digest() for place, video in enumerate(found.ids)}
    classes: dict[str, list[int]] = {name: [] for name in class_names(found.labels)}
    for place in sorted(rank, key=lambda each: rank[each]):
        classes[found.labels[place]].append(place)
    return list(classes.values())


def _part(found: Labelled, places: list[int]) -> Labelled:
    rows = sorted(places)
    return replace(found, ids=found.ids[rows], labels=tuple(found.labels[row] for row in rows))


def few_of(found: Labelled, index: Index, most: int) -> Labelled:
    """Return at most so many videos of a set, as evenly from the classes as they have videos."""
    if len(found.ids) <= most:
        return found
    turns = [
        (turn, number, place) for number, each in enumerate(_by_class(found, index)) for turn, place in enumerate(each)
    ]
    return _part(found, [place for _, _, place in sorted(turns)[:most]])


def held_out(each: LabelledSet, share: float) -> tuple[Labelled, Labelled]:
    """Return (to learn from, to test on): a share of each class, at least one video and never all of them.

    Raises:
        DataError: if a class has a single video.
    """
    found = each.found
    learnt, tested, single = [], [], []
    for places in _by_class(found, each.index):
        if len(places) < 2:
            single.append(found.labels[places[0]])
        count = min(len(places) - 1, max(1, round(share * len(places))))
        tested += places[:count]
        learnt += places[count:]
    if single:
        raise DataError(
            f"{each.where}: {len(single)} of {len(set(found.labels))} classes have a single video, and one is wanted to"
            f" learn from and one to test on: {examples(single)}; add videos, or name others in probe.test_uri"
        )
    return _part(found, learnt), _part(found, tested)
