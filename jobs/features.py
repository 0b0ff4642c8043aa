"""What `embed`, `probe`, `evaluate` and `segment` share: which network, which videos and views, where it is done."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from jobs.cli import ProgressLine, count, duration, say
from system import storage
from system.core.views import SAMPLINGS, Views
from system.errors import DataError, RecipeError
from system.recipe import Recipe, load_recipe

# Videos that were not read whole, of which the reason is shown.
FIRST = 5

if TYPE_CHECKING:
    from system.evaluate.encoders import Source
    from system.evaluate.frozen import Precision


def add_encoder(options: argparse.ArgumentParser, what: str = "encoder") -> None:
    """Add what says which encoder or other network: a run, or weights with their recipe; and overrides."""
    which = options.add_argument_group(f"the {what}: --run, or --weights")
    which.add_argument("--run", help="a run's folder, local or s3://; or its name under --storage")
    which.add_argument("--storage", default="./runs", help="run.storage of a run that is given by its name")
    which.add_argument("--step", type=int, help="of the run's checkpoint; default the newest")
    which.add_argument("--weights", help="a file, a folder of Hugging Face, or a checkpoint's folder; local or s3://")
    which.add_argument("--recipe", help="that --weights were trained with; default: released ones, 16 x 224 x 224")
    options.add_argument("overrides", nargs="*", metavar="section.field=value", help="laid over the recipe")


def add_work(options: argparse.ArgumentParser) -> None:
    """Add where the work is done and how."""
    how = options.add_argument_group("where")
    how.add_argument("--local", action="store_true", help="in this process and one decode child, without Ray")
    how.add_argument("--address", help="Ray cluster; `local` starts one here; default RAY_ADDRESS, then local")
    how.add_argument("--actors", type=count, help="actors with a network; default one a GPU, or one")
    how.add_argument("--cpus", type=count, default=1, help="cores of such an actor where there is no GPU; default 1")
    how.add_argument("--batch", type=count, default=16, help="views of one forward; default 16")
    how.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto: bf16 on a GPU")
    how.add_argument("--verbose", action="store_true", help="show what the cluster's processes print")


def views_from(text: str, sampling: str) -> Views:
    """Return the views that `CLIPSxCROPS` means.

    Raises:
        RecipeError: if it means none.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise RecipeError(f"views are CLIPSxCROPS with whole numbers from 1, such as 5x3, got {text}")
    assert sampling in SAMPLINGS
    return Views("segments" if sampling == "segments" else "dense", *map(int, parts))


def check_encoder(given: Any) -> None:
    """Refuse arguments that name no encoder, or two.

    Raises:
        RecipeError: says which go together.
    """
    if (given.run is None) == (given.weights is None):
        raise RecipeError("say which network: either --run or --weights, and --recipe with the latter")
    if given.recipe and given.run:
        raise RecipeError("--recipe is for --weights; a run has its own")
    if given.weights and (given.step is not None or getattr(given, "untrained", False)):
        raise RecipeError("--step and --untrained are for --run")


def chosen_encoder(given: Any) -> Source:
    """Return the weights that the arguments name.

    Raises:
        RecipeError: if they name none, or two.
        WeightsError: if a run, a checkpoint or weights are not there.
    """
    check_encoder(given)
    from system.evaluate.encoders import run_source, weights_source  # noqa: PLC0415  torch
    from system.train.folders import run_folder  # noqa: PLC0415

    if given.run is not None:
        untrained = getattr(given, "untrained", False)
        folder = run_folder(given.run, given.storage)
        return run_source(folder, given.step, say, given.overrides, untrained=untrained)
    place = storage.absolute(given.weights)
    if given.recipe is None:
        return weights_source(place, None, say, given.overrides)
    told: list[str] = []
    recipe = load_recipe(given.recipe, given.overrides, told=told)
    for line in told:
        say(line)
    return weights_source(place, recipe, say)


def unread_lines(manifest: dict[str, Any], what: str) -> list[str]:
    """Say which videos could not be read whole.

    Args:
        manifest: of the folder of their features.
        what: is done with those of which nothing could be read.
    """
    lines = []
    if manifest["failed"] or manifest["partly_read"]:
        why = ", ".join(f"{count} {word}" for word, count in sorted(manifest["reasons"].items()))
        lines.append(
            f"{manifest['failed']} videos could not be read{what} and {manifest['partly_read']} in part only ({why}),"
            " see the column `error`; the first:"
        )
        lines += [f"  {each['name']}: {each['error']}" for each in manifest["examples"][:FIRST]]
    if manifest["rejected_by_the_index"]:
        lines.append(f"{manifest['rejected_by_the_index']} files are no videos that can be read and not in the index")
    return lines


def check_failed(manifest: dict[str, Any], most_bad: float) -> None:
    """Refuse a set of which too many videos gave nothing.

    Raises:
        DataError: names the share and the first reasons.
    """
    if manifest["failed"] > most_bad * manifest["videos"]:
        first = "".join(f"\n  {each['name']}: {each['error']}" for each in manifest["examples"][:FIRST])
        raise DataError(
            f"{manifest['failed']} of {manifest['videos']} videos could not be read, more than"
            f" data.max_bad_ratio={most_bad:g}; mend them or raise it. The first:{first}"
        )


class Site:
    """Where features are computed: this process, or a cluster that is connected to once.

    Args:
        given: the arguments of `add_work`.
        recipe: sizes a cluster that is started here.
    """

    def __init__(self, given: Any, recipe: Recipe) -> None:
        import torch  # noqa: PLC0415

        self._given, self._gpus = given, 0
        if given.local:
            self.kind = "cuda" if torch.cuda.is_available() else "cpu"
        else:
            from system.train.launch import cluster_resources, connect, use_gpu  # noqa: PLC0415  ray

            connect(recipe, given.address, verbose=given.verbose)
            self._gpus = int(cluster_resources().get("GPU", 0)) if use_gpu(recipe) else 0
            self.kind = "cuda" if self._gpus else "cpu"
        half = given.precision == "bf16" or (given.precision == "auto" and self.kind == "cuda")
        self.precision: Precision = "bf16" if half else "fp32"

    def rows(self) -> Any:
        """Return what turns numbers of videos into rows."""
        from system.evaluate.extract import local_rows  # noqa: PLC0415

        if self._given.local:
            return partial(local_rows, device=self.kind)
        from system.evaluate.feature_stream import Encoders, feature_rows  # noqa: PLC0415

        count = self._given.actors or max(1, self._gpus)
        gpus = min(1.0, self._gpus / count)
        return partial(feature_rows, encoders=Encoders(count, gpus, self._given.cpus))


@contextmanager
def told_errors() -> Iterator[None]:
    """Raise the error of ours that Ray wraps in its own."""
    from system.errors import TubeletError  # noqa: PLC0415
    from system.train.failures import root  # noqa: PLC0415

    try:
        yield
    except TubeletError:
        raise
    except Exception as error:
        cause = root(error)
        if isinstance(cause, TubeletError):
            raise cause from error
        raise


class Counter:
    """Shows how many videos are done."""

    def __init__(self, what: str) -> None:
        self._what, self._line, self._began = what, ProgressLine(), time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        """Take the newest state."""
        self._first = done if self._first is None else self._first
        spent, here = time.monotonic() - self._began, done - self._first
        rate = here / spent if spent else 0.0
        left = f", {duration((total - done) / rate)} left" if rate and done < total else ""
        self._line.show(f"{self._what}: {done} of {total} videos, {rate:.1f} a second{left}", last=done == total)
