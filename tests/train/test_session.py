from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from system import storage
from system.data.assemble import local_blocks
from system.data.dataset import run_uri
from system.data.index import Index
from system.errors import DataError, DivergedFault, ResumeError, StorageFault, StreamFault
from system.recipe import Recipe
from system.train import checkpoint
from system.train.hooks import Terms
from system.train.judging import Judged, judge
from system.train.ledger import history
from system.train.progress import Progress, progress_from
from system.train.session import Watchers, train_rank
from system.train.telemetry import read_metrics
from tests.small import stream_spec, tiny_recipe
from tests.train.ranks import newest, train_here


@pytest.fixture
def recipe(generated: Path, request: pytest.FixtureRequest) -> Recipe:
    """A run of its own over the generated videos."""
    name = "".join(each if each.isalnum() else "-" for each in request.node.name)
    return tiny_recipe(generated, f"run.name={name}", "resources.num_workers=1")


def changed(recipe: Recipe, **run: object) -> Recipe:
    return recipe.model_copy(update={"run": recipe.run.model_copy(update=run)})


@pytest.mark.parametrize("stop", [4, 3])
def test_stopping_and_going_on_equals_going_through_to_the_last_bit(recipe: Recipe, stop: int) -> None:
    whole = changed(recipe, name=f"{recipe.run.name}-whole")
    train_here(whole)
    train_here(changed(recipe, stop_at_step=stop))
    stopped = checkpoint.latest(run_uri(recipe))
    assert stopped is not None
    assert stopped.step == stop
    train_here(recipe)
    one, other = newest(whole), newest(recipe)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    losses = [[row["loss"] for row in read_metrics(run_uri(each))] for each in (whole, recipe)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 8


def test_what_an_interrupted_start_did_after_its_checkpoint_is_done_again_and_told_once(recipe: Recipe) -> None:
    def die(values: dict[str, object]) -> None:
        if values["step"] == 5:
            raise StreamFault("killed")

    with pytest.raises(StreamFault, match="killed"):
        train_here(recipe, Watchers(on_step=die))
    assert [row["step"] for row in read_metrics(run_uri(recipe))] == list(range(6))
    found = checkpoint.latest(run_uri(recipe))
    assert found is not None
    assert found.step == 4
    train_here(recipe)
    assert [row["step"] for row in read_metrics(run_uri(recipe))] == list(range(8))


def test_what_ended_the_training_is_told_though_the_metrics_could_not_be_written_either(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = storage.write

    def full(uri: str, data: bytes) -> None:
        if uri.endswith("metrics.jsonl"):
            raise StorageFault(f"{uri}: full")
        written(uri, data)

    def die(values: dict[str, object]) -> None:
        raise DivergedFault("not finite", {0: "inf"})

    monkeypatch.setattr(storage, "write", full)
    with pytest.raises(DivergedFault) as ended:
        train_here(recipe, Watchers(on_step=die))
    (note,) = ended.value.__notes__
    assert note.startswith("the newest metrics were not written either: ")


def test_the_state_says_where_the_run_is(recipe: Recipe) -> None:
    done = train_here(recipe)
    found = checkpoint.latest(run_uri(recipe))
    assert found is not None
    assert found.step == found.optimizer_step == 8
    assert progress_from(found.state["progress"]) == done == Progress(8, slots=128, recent_slots=128, updates=8)
    assert found.state["seed"] == 0
    assert found.state["decoders"]


def test_a_step_of_another_number_is_refused(recipe: Recipe) -> None:
    spec = stream_spec(recipe, 1)
    with pytest.raises(StreamFault, match=r"step 0 was due, the stream gave 16 clips of step \[1\]"):
        train_rank(recipe, spec.index_uri, 0, lambda: local_blocks(spec, 0, 1))


def test_a_stream_that_ends_early_is_a_fault(recipe: Recipe) -> None:
    spec = stream_spec(recipe, 1, last_step=2)
    with pytest.raises(StreamFault, match="the stream ended before step 2"):
        train_rank(recipe, spec.index_uri, 0, lambda: local_blocks(spec, 0, 0))


def test_another_model_cannot_go_on(recipe: Recipe) -> None:
    train_here(changed(recipe, stop_at_step=4))
    deeper = recipe.model_copy(update={"model": recipe.model.model_copy(update={"depth": 3})})
    with pytest.raises(ResumeError, match="the model of the recipe is not the one of the run"):
        train_here(deeper)


def test_bad_videos_are_listed_and_too_many_of_them_end_the_run_with_nothing_lost(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "resources.num_workers=1", "data.max_bad_ratio=0.1")
    index = Index(stream_spec(recipe, 1).index_uri)
    bad = [index.row(video) for video in (2, 3, 7, 11)]
    for row in bad:
        storage.write(row.uri, b"x" * row.num_bytes)
    with pytest.raises(
        DataError, match=r"(?s)25.0% of the last 64 videos could not be read, more than .*max_bad_ratio"
    ):
        train_here(recipe)
    found = checkpoint.latest(run_uri(recipe))
    assert found is not None
    assert found.step == 4
    listed = [json.loads(line) for line in storage.read(storage.join(run_uri(recipe), "quarantine.jsonl")).splitlines()]
    assert [each["name"] for each in listed] == [row.name for row in bad]
    assert {each["code"] for each in listed} == {"open"}
    raised = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_bad_ratio": 0.5})})
    done = train_here(raised)
    assert (done.step, done.substituted, done.skipped) == (8, 32, 0)


def section(recipe: Recipe, name: str, **values: object) -> Recipe:
    return recipe.model_copy(update={name: getattr(recipe, name).model_copy(update=values)})


def test_a_step_of_which_nothing_can_be_read_ends_the_run_before_it_is_kept(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "resources.num_workers=1", "data.max_bad_ratio=1")
    index = Index(stream_spec(recipe, 1).index_uri)
    for video in range(index.num_videos):
        row = index.row(video)
        storage.write(row.uri, b"x" * row.num_bytes)
    with pytest.raises(DataError, match="not one of its 16 videos, nor their spares, could be read"):
        train_here(recipe)
    assert checkpoint.latest(run_uri(recipe)) is None


def test_checkpoints_that_are_kept_for_ever_are_made_whatever_the_ordinary_interval_is(recipe: Recipe) -> None:
    train_here(section(recipe, "checkpoint", every_steps=4, keep=1, keep_every_steps=3))
    assert checkpoint.complete_steps(run_uri(recipe)) == [3, 6, 8]


def poison(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, steps: set[int]) -> None:
    """Make the loss of some steps NaN."""
    taken = iter(range(10_000))
    micro_batches = recipe.train.global_batch // recipe.train.micro_batch

    def judged(*arguments: Any) -> Judged:
        found = judge(*arguments)
        if next(taken) // micro_batches in steps:
            return Judged({name: values * math.nan for name, values in found.losses.items()}, found.histograms)
        return found

    monkeypatch.setattr("system.train.loop.judge", judged)


def test_a_step_without_a_finite_gradient_changes_nothing_and_is_counted(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = section(recipe, "checkpoint", every_steps=1, keep=8)
    poison(monkeypatch, recipe, {3, 4})
    done = train_here(recipe)
    assert (done.step, done.updates, done.skipped, done.streak) == (8, 6, 32, 0)
    rows = read_metrics(run_uri(recipe))
    assert [row["step"] for row in rows if row["loss"] is None] == [3, 4]
    assert checkpoint.complete_steps(run_uri(recipe)) == [1, 2, 3, 6, 7, 8]  # none while nobody knows what comes of it
    found = checkpoint.latest(run_uri(recipe))
    assert found is not None
    reasons = {step: why for part in history(run_uri(recipe), found.ledger) for step, why in part.not_trained.items()}
    assert list(reasons) == [3, 4]
    assert reasons[3] == "the gradient's norm is nan, the loss nan"


def test_what_a_skipped_step_leaves_is_what_was_there_before(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    train_here(changed(recipe, stop_at_step=4))
    before = newest(recipe)
    poison(monkeypatch, recipe, {0})
    train_here(changed(recipe, stop_at_step=5))
    after = newest(recipe)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_several_useless_steps_in_a_row_end_the_start_and_are_passed_over_by_the_next(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = section(recipe, "checkpoint", every_steps=2)
    with monkeypatch.context() as patch:
        poison(patch, recipe, {3, 4, 5})
        with pytest.raises(DivergedFault, match="not finite in 3 steps in a row, 3 to 5") as caught:
            train_here(recipe)
    assert list(caught.value.steps) == [3, 4, 5]
    found = checkpoint.latest(run_uri(recipe))
    assert found is not None
    assert found.step == 2
    done = train_here(recipe, terms=Terms(skips=caught.value.steps))
    assert (done.step, done.updates, done.skipped) == (8, 5, 48)
    last = checkpoint.latest(run_uri(recipe))
    assert last is not None
    skipped = {step for part in history(run_uri(recipe), last.ledger) for step in part.not_trained}
    assert skipped == {3, 4, 5}


def test_a_run_whose_last_steps_were_useless_is_not_kept_beyond_the_last_good_one(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, recipe, {5, 6, 7})
    with pytest.raises(DivergedFault, match="5 to 7"):
        train_here(recipe)
    assert checkpoint.complete_steps(run_uri(recipe)) == [4]


def test_a_checkpoint_without_an_update_is_one_like_any_other(recipe: Recipe) -> None:
    recipe = section(recipe, "checkpoint", every_steps=2)
    train_here(changed(recipe, stop_at_step=2), terms=Terms(skips={0: "bad", 1: "bad"}))
    done = train_here(recipe, terms=Terms(skips={2: "bad"}))
    assert (done.step, done.updates) == (8, 5)


def test_a_checkpoint_that_is_wanted_amid_useless_steps_comes_after_them(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, recipe, {1, 2})
    wishes = iter(["", "", "save", "", "", "", "", ""])
    kept = section(recipe, "checkpoint", every_steps=100, keep=8)
    train_here(kept, Watchers(wanted=lambda: next(wishes)))  # type: ignore[arg-type]
    assert checkpoint.complete_steps(run_uri(recipe)) == [4, 8]


def test_a_step_size_that_ruins_the_weights_reaches_no_later_checkpoint(recipe: Recipe) -> None:
    wild = section(section(recipe, "train", base_lr=1e30, warmup_steps=0, clip_grad=None), "checkpoint", every_steps=1)
    with pytest.raises(DivergedFault, match="not finite in 3 steps in a row"):
        train_here(wild)
    found = checkpoint.latest(run_uri(wild))
    assert found is not None
    assert found.step < 4


def test_what_is_wanted_is_done_at_the_end_of_a_step(recipe: Recipe) -> None:
    wishes = iter(["", "save", "", "", "stop"])
    done = train_here(
        section(recipe, "checkpoint", every_steps=100, keep=8),
        Watchers(wanted=lambda: next(wishes)),  # type: ignore[arg-type]
    )
    assert done.step == 5
    assert checkpoint.complete_steps(run_uri(recipe)) == [2, 5]


def test_when_all_videos_are_gone_nothing_is_blamed_on_them(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "resources.num_workers=1")
    rows = list(Index(stream_spec(recipe, 1).index_uri))
    train_here(changed(recipe, stop_at_step=4))
    for row in rows:
        Path(row.uri).rename(row.uri + ".away")
    with pytest.raises(StorageFault, match="all 16 videos of a block are gone"):
        train_here(recipe)
    for row in rows:
        Path(row.uri + ".away").rename(row.uri)
    assert train_here(recipe) == Progress(8, slots=128, recent_slots=64, updates=8)


def test_an_object_that_was_missing_is_looked_for_again_at_the_next_start(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "resources.num_workers=1")
    row = Index(stream_spec(recipe, 1).index_uri).row(3)
    Path(row.uri).rename(row.uri + ".away")
    done = train_here(changed(recipe, stop_at_step=4))
    assert list(done.quarantine) == [3]
    assert done.substituted == 4
    Path(row.uri + ".away").rename(row.uri)
    done = train_here(recipe)
    assert not done.quarantine
    assert done.substituted == 4
    assert storage.read(storage.join(run_uri(recipe), "quarantine.jsonl")) == b""
