"""A rank's shard of the streams, begun before it is asked for; imports behind a worker's start."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from system.train import group
from system.train.worker import _Steps, _Stream
from tests.small import tiny_recipe


class Shard:
    """Gives its parts one after the other, a stream each; an error is raised where it stands."""

    def __init__(self, *streams: list[Any]) -> None:
        self._streams = iter(streams)
        self.begun = threading.Event()

    def iter_batches(self, **_words: object) -> Iterator[Any]:
        def give(parts: list[Any]) -> Iterator[Any]:
            for part in parts:
                self.begun.set()
                if isinstance(part, Exception):
                    raise part
                yield part

        return give(next(self._streams))


def blocks(of: _Stream) -> list[Any]:
    """Return the blocks of the next stream."""
    return list(of.blocks())


def stream(*streams: list[Any]) -> tuple[_Stream, Shard]:
    shard = Shard(*streams)
    return _Stream(cast("Any", shard)), shard


def test_a_stream_begins_before_it_is_asked_for_and_loses_nothing() -> None:
    ours, shard = stream(["a", "b", "c"], ["d"])
    assert shard.begun.wait(20)
    assert blocks(ours) == ["a", "b", "c"]
    assert blocks(ours) == ["d"]


def test_a_stream_of_no_block_ends_at_once() -> None:
    ours, _ = stream([], ["a"])
    assert blocks(ours) == []
    assert blocks(ours) == ["a"]


def test_what_fails_at_the_first_block_is_raised_to_whoever_wants_it() -> None:
    ours, _ = stream([ValueError("of the stream")])
    with pytest.raises(ValueError, match="of the stream"):
        next(ours.blocks())


def test_an_import_that_fails_behind_a_start_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "_behind", None)
    monkeypatch.setattr(threading, "excepthook", lambda _told: None)
    group.imported()
    group._import_behind(("json", "no_such_package"))
    group.imported()
    assert group._behind is not None
    assert not group._behind.is_alive()


def test_the_first_rank_of_each_cell_speaks_for_it_in_the_cells_own_count() -> None:
    recipe = tiny_recipe("nowhere", "resources.ranks_per_stream=2", "resources.decode_actors=2")
    steps = [_Steps(recipe, rank, 4) for rank in range(4)]
    assert [each.leads for each in steps] == [True, False, True, False]
    assert [each.cell.index for each in steps] == [0, 0, 1, 1]
    for each in steps:
        each.done({"step": 4})
        assert each.first_block() == 5 * 2
