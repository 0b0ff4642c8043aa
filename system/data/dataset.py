"""From `data.uri` to an index: one that is named, one that lies beside the videos, or one made now for the run.

`synthetic://moving?videos=64&seed=0` is generated on first use, below the run's storage.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qsl, urlsplit

from system import storage
from system.data.index import Index, read_rejected
from system.data.sources import build_index, in_order
from system.data.synthetic import moving_video
from system.errors import DataError, RecipeError, ResumeError
from system.recipe import Recipe

Progress = Callable[[str], None]

SYNTHETIC = "synthetic://"
# What `synthetic://moving` understands, with defaults: number of videos, seed, frames, height and width in px.
SYNTHETIC_FIELDS = {"videos": 64, "seed": 0, "frames": 64, "height": 128, "width": 160}


def quiet(_line: str) -> None:
    """Say nothing."""


def run_uri(recipe: Recipe) -> str:
    """Return the URI of the run's folder."""
    return storage.join(storage.absolute(recipe.run.storage), recipe.run.name)


def find_index(recipe: Recipe) -> str | None:
    """Return the index that the recipe's data has, or None if one has to be made.

    Raises:
        DataError: if storage refuses.
    """
    uri = recipe.data.uri
    if uri.endswith(".parquet"):
        return storage.absolute(uri)
    own = storage.join(run_uri(recipe), "index.parquet")
    if storage.exists(own):
        return own
    if uri.startswith(SYNTHETIC):
        beside = storage.join(synthetic_folder(recipe), "index.parquet")
    else:
        beside = storage.join(storage.absolute(uri), "index.parquet")
    return beside if storage.exists(beside) else None


def ensure_index(recipe: Recipe, workers: int = 2, say: Progress = quiet) -> str:
    """Return the URI of the recipe's index, making videos and index where they do not exist yet.

    Raises:
        DataError: if the data does not exist, is empty or may not be read.
        RecipeError: for a synthetic:// URI that means nothing.
    """
    found = find_index(recipe)
    if found is not None:
        return found
    uri = recipe.data.uri
    if uri.startswith(SYNTHETIC):
        folder = synthetic_folder(recipe)
        make_synthetic(uri, folder, workers, say)
        index_uri = storage.join(folder, "index.parquet")
        build_index(folder, index_uri, labels="folder", workers=workers)
        return index_uri
    index_uri = storage.join(run_uri(recipe), "index.parquet")
    say(f"indexing {uri}")

    def progress(done: int, bad: int) -> None:
        if (done + bad) % 500 == 0:
            say(f"indexing {uri}: {done} videos, {bad} rejected")

    writer = build_index(uri, index_uri, workers=workers, progress=progress)
    try:
        check_rejected(recipe, Index(index_uri))
    except DataError:
        storage.delete([index_uri])  # or the same command would find it again after the data is mended
        raise
    say(f"indexed {writer.num_videos} videos, {len(writer.rejected)} rejected: {index_uri}")
    return index_uri


def videos_index(uri: str, own: str, say: Progress = quiet) -> Index:
    """Return the index of videos: one that is named, one that lies beside them, or one that is made now.

    Args:
        uri: an index.parquet, or a folder or prefix of videos.
        own: where one that has to be made is put.
        say: is told that one is made.

    Raises:
        DataError: if there are no videos.
        ResumeError: if what lies at `own` is of other videos.
    """
    place = storage.absolute(uri)
    if uri.endswith(".parquet"):
        return Index(place)
    beside = storage.join(place, "index.parquet")
    if storage.exists(beside):
        return Index(beside)
    if storage.exists(own):
        made = Index(own)
        if storage.absolute(made.source) != place:
            raise ResumeError(f"{own} is of {made.source}, not of {uri}; use another folder, or delete it")
        return made
    storage.check_writable(own)
    say(f"indexing {uri}, which has no index.parquet")
    build_index(place, own, workers=2 * (os.cpu_count() or 1))
    return Index(own)


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
        if key not in fields or not value.isdigit():
            raise RecipeError(f"data.uri={uri}: {key}={value} is not one of {', '.join(fields)} with a whole number")
        fields[key] = int(value)
    return fields


def synthetic_folder(recipe: Recipe) -> str:
    """Return where the generated videos of a recipe lie: below the run's storage, shared by its runs."""
    fields = synthetic_fields(recipe.data.uri)
    name = "-".join(f"{key}{value}" for key, value in fields.items())
    return storage.join(storage.absolute(recipe.run.storage), "synthetic", name)


def make_synthetic(uri: str, folder: str, workers: int = 2, say: Progress = quiet) -> None:
    """Generate the videos that a synthetic:// URI describes, each in a folder named after its motion."""
    fields = synthetic_fields(uri)
    say(f"generating {fields['videos']} videos in {folder}")
    numbers = range(fields["videos"])
    size = (fields["height"], fields["width"])
    make = partial(moving_video, fields["seed"], size=size, num_frames=fields["frames"])
    for number, (label, data) in in_order(make, numbers, workers):  # threads: OpenCV and x264 let go of the interpreter
        storage.write(storage.join(folder, label, f"{number:06d}.mp4"), data)
