"""Ranks that are killed at a chosen moment: what a spot machine does to a run, without Ray.

The moment is reached inside of the rank's own process, which then sends itself SIGKILL: nothing after it runs, no
`finally`, no flush. The other ranks find out as they do in a real run, by the end of their connections.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from system import storage
from system.data.dataset import run_uri
from system.data.masking import Masker
from system.data.sandbox import Sandbox
from system.recipe import Recipe
from system.train import saving
from system.train.hooks import Terms
from system.train.manifest import MANIFEST
from system.train.session import Watchers
from system.train.torch_engine import rank_and_size
from tests.train.ranks import on_ranks, train_here


@dataclass(frozen=True)
class Kill:
    """Who dies, and when.

    Attributes:
        moment: one of `MOMENTS`.
        rank: of the process.
        count: the moment's how-manieth time, from 1.
    """

    moment: str
    rank: int
    count: int


def died(recipe: Recipe) -> Path:
    """Return the file that says that somebody died as planned."""
    return storage.local_path(run_uri(recipe) + ".died")


class _Dying:
    """How this process dies: it leaves word, and nothing else."""

    def __init__(self, word: Path) -> None:
        self._word = word

    def __call__(self, *_: Any) -> None:
        self._word.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def nth(count: int, then: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `otherwise`, and `then` the n-th time."""
    left = count

    def call(*arguments: Any, **names: Any) -> Any:
        nonlocal left
        left -= 1
        return (otherwise if left else then)(*arguments, **names)

    return call


def _half_a_file(die: _Dying, path: Path, uri: str) -> None:
    """What an upload leaves that is cut in its middle, on a store that shows it: half a file at its place."""
    place = storage.local_path(uri)
    place.parent.mkdir(parents=True, exist_ok=True)
    data = path.read_bytes()
    place.write_bytes(data[: len(data) // 2])
    die()


def _half_a_copy(die: _Dying, real: Callable[..., Any], copy: saving.HostCopy, fragments: Any) -> None:
    real(copy, fragments[: len(fragments) // 2])
    die()


def _on_write(kill: Kill, die: _Dying, suffix: str, *, then: str) -> None:
    """Die at the n-th write of an object whose URI has this in it: before it, in its middle, or after it."""
    real, left = storage.write, kill.count

    def write(uri: str, data: bytes) -> None:
        nonlocal left
        left -= suffix in uri
        if suffix not in uri or left:
            return real(uri, data)
        if then != "before":
            real(uri, data if then == "after" else data[: len(data) // 2])
        return die()

    storage.write = write


def _install(kill: Kill, die: _Dying) -> Watchers:
    if kill.moment == "between steps":
        return Watchers(on_step=nth(kill.count, die, lambda values: None))
    if kill.moment == "in a save":
        real = saving.HostCopy.of
        saving.HostCopy.of = nth(kill.count, partial(_half_a_copy, die, real), real)  # type: ignore[method-assign]
    elif kill.moment == "in an upload":
        storage.upload = nth(kill.count, partial(_half_a_file, die), storage.upload)
    elif kill.moment == "in decode":
        Sandbox._send = nth(kill.count, die, Sandbox._send)  # type: ignore[method-assign]
    elif kill.moment == "in the mask stage":
        Masker.__call__ = nth(kill.count, die, Masker.__call__)  # type: ignore[method-assign]
    else:
        what, when = _WRITES[kill.moment]
        _on_write(kill, die, what, then=when)
    return Watchers()


_WRITES = {
    "after the ledger": ("/ledger/", "after"),
    "before the manifest": (MANIFEST, "before"),
    "in the manifest": (MANIFEST, "within"),
    "after the manifest": (MANIFEST, "after"),
}
MOMENTS = ("between steps", "in a save", "in an upload", "in decode", "in the mask stage", *_WRITES)


def _train(recipe: Recipe, kill: Kill | None, generation: int) -> None:
    watchers = Watchers()
    if kill is not None and rank_and_size()[0] == kill.rank:
        watchers = _install(kill, _Dying(died(recipe)))
    train_here(recipe, watchers, Terms(generation=generation))


def train_killed(size: int, recipe: Recipe, kill: Kill, generation: int) -> None:
    """Start ranks of which one dies; return when all are gone.

    Raises:
        AssertionError: if none died: the moment was never reached.
    """
    # Either the dead rank is found first, or another one that noticed that its peer is gone.
    with suppress(ProcessExitedException, ProcessRaisedException):
        on_ranks(size, _train, recipe, kill, generation)
    assert died(recipe).exists(), f"nobody died {kill.moment} on rank {kill.rank}, time {kill.count}"


def train_on_to_the_end(size: int, recipe: Recipe, generation: int) -> None:
    """Train on, undisturbed."""
    on_ranks(size, _train, recipe, None, generation)
