"""From `data.uri` to an index: one that is named, one that lies beside the videos, or one made now for the run.

A run whose method has labels is trained with an index of its own, made of that one (classes.py): `ensure_labels`.

`synthetic://moving?videos=64&seed=0` is generated on first use, below the run's storage.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qsl, urlsplit

from system import storage
from system.data.classes import check_same_labels, has_classes, read_classes, source_of, write_classes, write_labelled
from system.data.index import Index, read_rejected
from system.data.labels import Labelled, class_names, examples, labelled
from system.data.sources import build_index, in_order
from system.errors import DataError, RecipeError, ResumeError
from system.methods.labelled import LabelledOptions
from system.recipe import Recipe

Progress = Callable[[str], None]

SYNTHETIC = "synthetic://"
# What `synthetic://moving` understands, with defaults: number of videos, seed, frames, height and width in px.
SYNTHETIC_FIELDS = {"videos": 64, "seed": 0, "frames": 64, "height": 128, "width": 160}
# The least of each; sides are even besides, as 4:2:0 needs.
_LEAST = {"videos": 1, "seed": 0, "frames": 1, "height": 16, "width": 16}


def quiet(_line: str) -> None:
    """Say nothing."""


def run_uri(recipe: Recipe) -> str:
    """Return the URI of the run's folder."""
    return storage.join(storage.absolute(recipe.run.storage), recipe.run.name)


def _own_index(recipe: Recipe) -> str:
    return storage.join(run_uri(recipe), "index.parquet")


def find_index(recipe: Recipe) -> str | None:
    """Return the index that a run of the recipe is trained with, or None if it has to be made.

    Raises:
        DataError: if storage refuses.
    """
    if not recipe.record.labelled:
        return find_videos(recipe)
    return _own_index(recipe) if storage.exists(_own_index(recipe)) else None


def find_videos(recipe: Recipe) -> str | None:
    """Return the index that the recipe's data has, labelled or not, or None if one has to be made.

    Raises:
        DataError: if storage refuses.
    """
    uri = recipe.data.uri
    if uri.endswith(".parquet"):
        return storage.absolute(uri)
    made = _made_index(recipe)
    is_made = storage.exists(made)
    if is_made and _is_of(Index(made), uri):
        return made
    folder = synthetic_folder(recipe) if uri.startswith(SYNTHETIC) else storage.absolute(uri)
    beside = storage.join(folder, "index.parquet")
    if storage.exists(beside):
        return beside
    # Of other videos: a run that has begun with them refuses these; one that has not gets an index of its own.
    return made if is_made and _has_begun(recipe) else None


def _has_begun(recipe: Recipe) -> bool:
    """Say whether the run keeps a recipe, which is written when it begins: from then on it is of one set of videos."""
    return storage.exists(storage.join(run_uri(recipe), "recipe.yaml"))


def _is_of(index: Index, uri: str) -> bool:
    """Say whether an index is of the videos under a folder or prefix; one that was made for a name may be of others."""
    return not uri.startswith(SYNTHETIC) and storage.absolute(index.source) == storage.absolute(uri)


def _made_index(recipe: Recipe) -> str:
    """Return where an index of the videos is put that is made for the run; labels make another one of it."""
    return storage.join(run_uri(recipe), "videos.parquet") if recipe.record.labelled else _own_index(recipe)


def ensure_index(recipe: Recipe, workers: int = 2, say: Progress = quiet) -> str:
    """Return the URI of the index that a run of the recipe is trained with, making what does not exist yet.

    Raises:
        DataError: if the data does not exist, is empty or may not be read.
        RecipeError: for a synthetic:// URI that means nothing.
    """
    found = find_index(recipe)
    if found is not None:
        return found
    if recipe.record.labelled:
        ensure_labels(recipe, workers, say)
        return _own_index(recipe)
    return ensure_videos(recipe, workers, say)


def ensure_labels(recipe: Recipe, workers: int = 2, say: Progress = quiet) -> Recipe:
    """Read the labels of a recipe's videos, keep them with the run, and return the recipe with `method.classes`.

    The run's folder gets `index.parquet` with the labels filled in, and `classes.json`. A run that has begun keeps its
    labels. A recipe of a method without labels is returned as it is.

    Raises:
        DataError: if a video has no label, or a list does not cover the index; the data cannot be read.
        RecipeError: if `method.classes` is another number than that of the labels.
        ResumeError: if the run has begun with other labels.
    """
    options = recipe.method
    if not isinstance(options, LabelledOptions):
        return recipe
    videos = Index(ensure_videos(recipe, workers, say))
    found = labelled(videos, options.labels, only_listed=options.only_listed)
    classes = class_names(found.labels)
    is_kept = _has_begun_so(recipe, videos, found, classes)
    _check_number(options, classes)
    if not is_kept:
        write_labelled(videos, found, _own_index(recipe))
        write_classes(run_uri(recipe), classes)
        left = f", {found.left_out} left out" if found.left_out else ""
        say(f"{len(found.ids)} videos of {len(classes)} classes{left}: {_own_index(recipe)}")
    return recipe.model_copy(update={"method": options.model_copy(update={"classes": len(classes)})})


def _check_number(options: LabelledOptions, classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        raise DataError(f"method.labels={options.labels}: all videos are of the class {classes[0]}; two are needed")
    if options.classes not in (None, len(classes)):
        raise RecipeError(
            f"method.classes={options.classes}, and the labels have {len(classes)} classes ({examples(classes)}); leave"
            " it out, or give the labels that it counts"
        )


def _has_begun_so(recipe: Recipe, videos: Index, found: Labelled, classes: tuple[str, ...]) -> bool:
    """Say whether the run has its index and classes already; one that has begun is refused if they are others."""
    folder, run = run_uri(recipe), recipe.run.name
    if not _has_begun(recipe):
        return False
    if not has_classes(folder):
        raise ResumeError(f"the run {run} exists and learns no labels; give the new one another run.name")
    own = Index(_own_index(recipe))
    check_same_labels(run, own, videos, found)
    if read_classes(folder) != classes:
        raise ResumeError(f"the run {run} exists with other classes; give the new one another run.name")
    return own.source == source_of(videos)  # else they lie elsewhere now


def ensure_videos(recipe: Recipe, workers: int = 2, say: Progress = quiet) -> str:
    """Return the URI of the index of the recipe's videos, making videos and index where they do not exist yet.

    Raises:
        DataError: if the data does not exist, is empty or may not be read.
        RecipeError: for a synthetic:// URI that means nothing.
    """
    found = find_videos(recipe)
    if found is not None:
        return found
    uri = recipe.data.uri
    if uri.startswith(SYNTHETIC):
        folder = synthetic_folder(recipe)
        make_synthetic(uri, folder, workers, say)
        index_uri = storage.join(folder, "index.parquet")
        build_index(folder, index_uri, labels="folder", workers=workers)
        return index_uri
    index_uri = _made_index(recipe)
    say(f"indexing {uri}")

    def progress(done: int, bad: int) -> None:
        if (done + bad) % 500 == 0:
            say(f"indexing {uri}: {done} videos, {bad} rejected")

    writer = build_index(storage.absolute(uri), index_uri, workers=workers, progress=progress)
    _check_made(recipe, Index(index_uri), index_uri)
    say(f"indexed {writer.num_videos} videos, {len(writer.rejected)} rejected: {index_uri}")
    return index_uri


def videos_index(uri: str, own: str, say: Progress = quiet, workers: int | None = None) -> Index:
    """Return the index of videos: one that is named, made before, lies beside them, or is made now.

    Args:
        uri: an index.parquet, or a folder or prefix of videos.
        own: where one that has to be made is put; once it is there it is the one, whatever comes to lie beside them.
        say: is told that one is made.
        workers: videos probed side by side; default: two a core.

    Raises:
        DataError: if there are no videos.
        ResumeError: if what lies at `own` is of other videos.
    """
    place = storage.absolute(uri)
    if uri.endswith(".parquet"):
        return Index(place)
    if storage.exists(own):
        made = Index(own)
        if not _is_of(made, uri):
            raise ResumeError(f"{own} is of {made.source}, not of {uri}; use another folder, or delete it")
        return made
    beside = storage.join(place, "index.parquet")
    if storage.exists(beside):
        return Index(beside)
    storage.check_writable(own)
    say(f"indexing {uri}, which has no index.parquet")
    build_index(place, own, workers=workers or 2 * (os.cpu_count() or 1))
    return Index(own)


def readable_index(recipe: Recipe, uri: str, own: str, say: Progress = quiet) -> Index:
    """Return the index of videos as `videos_index` does, if it does not leave out too much.

    Raises:
        DataError: if there are no videos, or too many of the files are none; an index at `own` is not kept then.
        ResumeError: if what lies at `own` is of other videos.
    """
    index = videos_index(uri, own, say)
    _check_made(recipe, index, own)
    return index


def _check_made(recipe: Recipe, index: Index, own: str) -> None:
    try:
        check_rejected(recipe, index)
    except DataError:
        if index.uri == own:
            storage.delete([own])  # or the same command would find it again after the videos are mended
        raise


def check_rejected(recipe: Recipe, index: Index) -> None:
    """Refuse an index that leaves out too much.

    Raises:
        DataError: names the share and the first reasons.
    """
    total = index.num_videos + index.num_rejected
    if index.num_rejected > recipe.data.max_bad_ratio * total:
        first = "".join(f"\n  {bad.name}: {bad.reason}" for bad in read_rejected(index.uri)[:5])
        raise DataError(
            f"{index.source}: {index.num_rejected} of {total} videos cannot be read, more than"
            f" data.max_bad_ratio={recipe.data.max_bad_ratio:g}; mend them or raise it. The first:{first}"
        )


def synthetic_fields(uri: str) -> dict[str, int]:
    """Return the numbers that a synthetic:// URI says, with defaults for the rest.

    Raises:
        RecipeError: if it means nothing.
    """
    parts = urlsplit(uri)
    if parts.netloc != "moving":
        raise RecipeError(f"data.uri={uri}: the only generated set is synthetic://moving")
    fields = dict(SYNTHETIC_FIELDS)
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in fields or not value.isdecimal():
            raise RecipeError(f"data.uri={uri}: {key}={value} is not one of {', '.join(fields)} with a whole number")
        if int(value) < _LEAST[key] or (key in ("height", "width") and int(value) % 2):
            raise RecipeError(
                f"data.uri={uri}: videos and frames are from 1, height and width even numbers from 16,"
                f" got {key}={value}"
            )
        fields[key] = int(value)
    return fields


def synthetic_folder(recipe: Recipe) -> str:
    """Return where the generated videos of a recipe lie: below the run's storage, shared by its runs."""
    fields = synthetic_fields(recipe.data.uri)
    name = "-".join(f"{key}{value}" for key, value in fields.items())
    return storage.join(storage.absolute(recipe.run.storage), "synthetic", name)


def make_synthetic(uri: str, folder: str, workers: int = 2, say: Progress = quiet) -> None:
    """Generate the videos that a synthetic:// URI describes, each in a folder named after its motion."""
    from system.data.synthetic import moving_video  # noqa: PLC0415  OpenCV

    fields = synthetic_fields(uri)
    say(f"generating {fields['videos']} videos in {folder}")
    numbers = range(fields["videos"])
    size = (fields["height"], fields["width"])
    make = partial(moving_video, fields["seed"], size=size, num_frames=fields["frames"])
    for number, (label, data) in in_order(make, numbers, workers):  # threads: OpenCV and x264 let go of the interpreter
        storage.write(storage.join(folder, label, f"{number:06d}.mp4"), data)
