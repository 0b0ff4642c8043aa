from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from system import storage
from system.config import CheckpointSection
from system.data.notes import Note
from system.errors import CheckpointFault, LeaseError, StorageFault
from system.train.checkpoint import complete_steps, latest, open_checkpoint
from system.train.fragments import STATES, Fragment
from system.train.ledger import Made, history
from system.train.progress import Progress
from system.train.recorder import Span
from system.train.saving import Books, Keeper, RunFacts

SHAPE = {"weight": [4, 5]}


class State:
    """A model of one parameter, which training overwrites in place."""

    def __init__(self) -> None:
        self.flat = {name: torch.zeros(20) for name in STATES}

    def fragments(self) -> list[Fragment]:
        return [Fragment("weight", state, 0, values) for state, values in self.flat.items()]

    def train(self, value: float) -> None:
        for values in self.flat.values():
            values.fill_(value)


def keeper(run: Path, state: State, **facts: Any) -> Keeper:
    books = facts.pop("books", Books())
    made = RunFacts(str(run), SHAPE, {"seed": 0}, 4, Made(1, 7), **facts)
    return Keeper(made, CheckpointSection(keep=2), state.fragments, books, None)


def span(first: int, steps: int) -> Span:
    return Span(first, np.ones((steps, 4), np.uint64))


def held(run: Path, step: int) -> float:
    values = torch.zeros(20)
    open_checkpoint(str(run), step).fill([Fragment("weight", "exp_avg", 0, values)])
    assert (values == values[0]).all()
    return float(values[0])


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Holds every upload back until it is set."""
    opened, upload = threading.Event(), storage.upload

    def wait(path: Path, uri: str) -> None:
        assert opened.wait(30)
        upload(path, uri)

    monkeypatch.setattr(storage, "upload", wait)
    return opened


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_is_trained_after_a_checkpoint_began_is_not_in_it(tmp_path: Path, gate: threading.Event) -> None:
    state = State()
    kept = keeper(tmp_path, state)
    state.train(1.0)
    kept.begin(Progress(2), span(0, 2))
    assert not kept.written()
    state.train(2.0)
    gate.set()
    until(kept.written)
    kept.commit()
    assert not kept.written()
    kept.finish()
    assert held(tmp_path, 2) == 1.0


def test_a_checkpoint_begins_when_the_one_before_it_is_there(tmp_path: Path, gate: threading.Event) -> None:
    state = State()
    kept = keeper(tmp_path, state)
    state.train(1.0)
    kept.begin(Progress(2), span(0, 2))
    state.train(2.0)
    second = threading.Thread(target=lambda: kept.begin(Progress(4), span(2, 2)))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    assert complete_steps(str(tmp_path)) == []
    gate.set()
    second.join(30)
    assert complete_steps(str(tmp_path)) == [2]
    kept.finish()
    assert [held(tmp_path, step) for step in (2, 4)] == [1.0, 2.0]


def test_segments_chain_from_checkpoint_to_checkpoint_and_outlive_them(tmp_path: Path) -> None:
    state = State()
    kept = keeper(tmp_path, state)
    note = Note(5, 1, 0, "open", "no video")
    for step in range(1, 6):
        kept.begin(Progress(step), Span(step - 1, np.ones((1, 4), np.uint64), (note,), {0: "why"} if step == 1 else {}))
    kept.finish()
    assert complete_steps(str(tmp_path)) == [4, 5]
    found = latest(str(tmp_path))
    assert found is not None
    parts = history(str(tmp_path), found.ledger)
    assert [(part.first_step, part.stop_step) for part in parts] == [(step, step + 1) for step in range(5)]
    assert parts[0].not_trained == {0: "why"}
    assert parts[4].passed_over == (note,)
    assert parts[4].slots == range(16, 20)
    (tmp_path / "ledger" / found.ledger.name).unlink() if found.ledger else None
    with pytest.raises(CheckpointFault, match="part of the ledger is gone"):
        open_checkpoint(str(tmp_path), 5)


def test_what_could_not_be_written_ends_the_start_at_its_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, uri: str) -> None:
        raise StorageFault(f"{uri}: full")

    monkeypatch.setattr(storage, "upload", fail)
    kept = keeper(tmp_path, State())
    kept.begin(Progress(2), span(0, 2))
    until(kept.written)
    with pytest.raises(StorageFault, match="full"):
        kept.commit()
    assert latest(str(tmp_path)) is None


def test_a_job_that_lost_the_run_commits_nothing(tmp_path: Path) -> None:
    def fenced() -> None:
        raise LeaseError("taken over by somebody")

    kept = keeper(tmp_path, State(), fenced=fenced)
    kept.begin(Progress(2), span(0, 2))
    with pytest.raises(LeaseError, match="taken over"):
        kept.finish()
    assert latest(str(tmp_path)) is None


def test_metrics_are_there_before_the_checkpoint_is(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    books = Books(lambda: seen.append(complete_steps(str(tmp_path))), lambda after: seen.append([after.step]))
    kept = keeper(tmp_path, State(), books=books)
    kept.begin(Progress(2), span(0, 2))
    kept.finish()
    assert seen == [[], [2]]


def test_the_last_good_checkpoint_stays_when_the_newest_turns_out_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = keeper(tmp_path, State())
    for step in (1, 2):
        kept.begin(Progress(step), span(step - 1, 1))
    kept.finish()
    upload = storage.upload

    def lose_half(path: Path, uri: str) -> None:
        upload(path, uri)
        place = storage.local_path(uri)
        place.write_bytes(place.read_bytes()[:100])

    monkeypatch.setattr(storage, "upload", lose_half)
    kept.begin(Progress(3), span(2, 1))
    with pytest.raises(CheckpointFault, match="bytes long"):
        kept.finish()
    found = latest(str(tmp_path))
    assert found is not None
    assert found.step == 2
