"""Copies of a recipe's videos that may be damaged: the originals are only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from system import storage
from system.chaos.damage import DAMAGES, choose, damage_for_certain
from system.data.assemble import clip_bytes, clip_maker, limits_of
from system.data.dataset import ensure_index
from system.data.index import Index, IndexWriter, VideoRow
from system.data.sandbox import Sandbox
from system.errors import RecipeError
from system.recipe import Recipe

Say = Callable[[str], None]

# Copied of a set that has more of them; every n-th is taken.
MOST_VIDEOS = 512


@dataclass(frozen=True, slots=True)
class Copy:
    """A copied video: its file here, its name among the copies, and what the index of the originals says of it."""

    path: Path
    name: str
    row: VideoRow


def check_share(recipe: Recipe, num_videos: int, amount: float) -> None:
    """Refuse a share of damaged videos that ends the run.

    Raises:
        RecipeError: if it is above `data.max_bad_ratio`.
    """
    damaged, limit = len(choose(num_videos, amount, 0)), recipe.data.max_bad_ratio
    if damaged > limit * num_videos:
        raise RecipeError(
            f"--corrupt damages {damaged} of {num_videos} videos, and data.max_bad_ratio={limit:g} stops a run at so"
            " many; raise that, damage less, or take more videos"
        )


def copy_here(recipe: Recipe, folder: Path, say: Say) -> list[Copy]:
    """Copy the recipe's videos into a folder, each into a file of its own; generated ones are generated first.

    Raises:
        DataError: if the data cannot be read.
    """
    originals = recipe.model_copy(
        update={"run": recipe.run.model_copy(update={"storage": str(folder / "originals"), "name": "index"})}
    )
    index = Index(ensure_index(originals, say=say))
    every = -(-index.num_videos // MOST_VIDEOS)
    if every > 1:
        say(f"every {every}th of {index.num_videos} videos is copied")
    copies = []
    for video in range(0, index.num_videos, every):
        row = index.row(video)
        name = f"{video:08d}{PurePosixPath(row.name).suffix}"
        path = folder / name
        path.write_bytes(storage.read(row.uri, row.byte_start, row.byte_start + row.num_bytes))
        copies.append(Copy(path, name, row))
    return copies


def index_copies(copies: Sequence[Copy], folder_uri: str) -> str:
    """Write the index of copies that lie, or will lie, in a folder; return its URI."""
    uri = storage.join(folder_uri, "index.parquet")
    writer = IndexWriter(uri, folder_uri)
    for copy in copies:
        row = asdict(copy.row)
        del row["video_id"], row["duration_s"]
        place = {"uri": storage.join(folder_uri, copy.name), "name": copy.name, "byte_start": 0, "etag": ""}
        writer.add({**row, **place})
    writer.close()
    return uri


def put(copies: Sequence[Copy], folder_uri: str) -> None:
    """Write the copies' bytes to where their index says."""
    storage.in_parallel([_putting(copy, folder_uri) for copy in copies])


def _putting(copy: Copy, folder_uri: str) -> Callable[[], None]:
    return lambda: storage.write(storage.join(folder_uri, copy.name), copy.path.read_bytes())


@contextmanager
def _child(recipe: Recipe) -> Iterator[Sandbox]:
    sandbox = Sandbox(recipe.data.views * clip_bytes(recipe), limits_of(recipe))
    try:
        yield sandbox
    finally:
        sandbox.close()


def damage(recipe: Recipe, index_uri: str, amount: float, seed: int, say: Say) -> list[str]:
    """Damage a share of the videos of an index in place, so that no clip of the recipe's decodes; return their names.

    Raises:
        RecipeError: if the share is more than the recipe lets pass.
    """
    index = Index(index_uri)
    check_share(recipe, index.num_videos, amount)
    names = []
    with _child(recipe) as sandbox:
        maker = clip_maker(recipe, index_uri)
        for number, video in enumerate(choose(index.num_videos, amount, seed)):
            row = index.row(video)
            kind = DAMAGES[number % len(DAMAGES)]
            wrong, damaged = damage_for_certain(sandbox, maker, row, storage.read(row.uri), kind, seed + video)
            storage.write(row.uri, wrong)
            say(f"damaged {row.name}: {kind}, {damaged:.0%} of {row.num_bytes} bytes")
            names.append(row.name)
    return names
