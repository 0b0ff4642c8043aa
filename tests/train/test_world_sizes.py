from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from system import storage
from system.data.dataset import run_uri
from system.data.index import Index
from system.recipe import Recipe
from system.train.audit import audit
from system.train.checkpoint import latest
from system.train.past import open_past
from system.train.telemetry import read_metrics
from tests.small import labelled_recipe, stream_spec, tiny_recipe
from tests.train.ranks import newest, train_on
from tests.train.recorded import keep_recipe


def run(generated: Path, name: str, *overrides: str) -> Recipe:
    return tiny_recipe(generated, f"run.name={name}", "resources.num_workers=1", *overrides)


def told(recipe: Recipe) -> list[tuple[float, float]]:
    return [(row["loss"], row["grad_norm"]) for row in read_metrics(run_uri(recipe))]


@pytest.mark.parametrize("method", ["mgmae", "videomae"])
def test_loss_and_gradient_do_not_depend_on_the_cut_into_micro_batches(generated: Path, method: str) -> None:
    found = []
    for clips in (16, 8, 3, 1):
        recipe = run(
            generated, f"cut-{method}-{clips}", f"train.micro_batch={clips}", f"method.name={method}", "train.steps=3"
        )
        train_on(1, recipe)
        found.append(torch.tensor(told(recipe)))
    for other in found[1:]:
        assert torch.allclose(other, found[0], rtol=1e-4)


def chain(recipe: Recipe) -> str:
    """The ledger's last link: it names every clip of every step, its pixels and its mask."""
    found = latest(run_uri(recipe))
    assert found is not None and found.ledger is not None
    return found.ledger.chain


@pytest.mark.slow
def test_any_number_of_ranks_trains_on_the_same_and_goes_on_from_any_other(generated: Path) -> None:
    """A global batch of 16: three ranks pad it. Starts with 2, 3 and 1 ranks in turn equal one start with one.

    The audit of these starts is clean.
    """
    alone = run(generated, "alone")
    train_on(1, alone)
    for size in (2, 3, 4):
        recipe = run(generated, f"ranks-{size}")
        train_on(size, recipe)
        assert chain(recipe) == chain(alone)
        assert torch.allclose(torch.tensor(told(recipe)), torch.tensor(told(alone)), rtol=1e-3)
    changing = run(generated, "changing")
    for size, stop in ((2, 3), (3, 5), (1, 8)):
        train_on(size, run(generated, "changing", f"run.stop_at_step={stop}"))
    assert chain(changing) == chain(alone)
    assert torch.allclose(torch.tensor(told(changing)), torch.tensor(told(alone)), rtol=1e-3)
    keep_recipe(changing)
    found = audit(open_past(run_uri(changing)))
    assert found.clean, found.findings
    assert [(each.first_step, each.stop_step, each.ranks) for each in found.stretches] == [
        (0, 3, 2),
        (3, 5, 3),
        (5, 8, 1),
    ]
    one, other = newest(alone), newest(changing)
    assert max(float((one[key] - other[key]).abs().max()) for key in one) < 1e-4


@pytest.mark.slow
def test_labelled_clips_train_the_same_on_ranks_of_which_one_has_a_block_of_padding(generated: Path) -> None:
    """Clips are mixed in pairs and parts of the model left out at random; a restart on other ranks changes none of it.

    Blocks of two clips: of nine on three ranks the last is all padding.
    """
    few = ("resources.num_workers=1", "data.clips_per_block=2", "train.steps=4", "method.head_dropout=0.5")
    alone, changing = (labelled_recipe(generated, f"run.name=labelled-{name}", *few) for name in ("one", "many"))
    train_on(1, alone)
    layout = stream_spec(changing, 3).layout
    assert (layout.blocks_per_rank, layout.slots_per_block) == (3, 2)
    train_on(3, labelled_recipe(generated, "run.name=labelled-many", *few, "run.stop_at_step=2"))
    train_on(1, changing)
    assert chain(changing) == chain(alone)
    assert torch.allclose(torch.tensor(told(changing)), torch.tensor(told(alone)), rtol=1e-3)
    one, other = newest(alone), newest(changing)
    assert max(float((one[key] - other[key]).abs().max()) for key in one) < 1e-4


@pytest.mark.slow
def test_two_ranks_that_stop_and_go_on_equal_two_that_go_through_to_the_last_bit(generated: Path) -> None:
    whole = run(generated, "two-whole")
    train_on(2, whole)
    for stop in (3, 8):
        train_on(2, run(generated, "two-parts", f"run.stop_at_step={stop}"))
    one, other = newest(whole), newest(run(generated, "two-parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles for a CPU with g++")
def test_a_compiled_model_trains_the_same(generated: Path) -> None:
    found = []
    for compiled in (False, True):
        recipe = run(generated, f"compiled-{compiled}", f"engine.compile={compiled}", "train.steps=3")
        train_on(1, recipe)
        found.append(torch.tensor(told(recipe)))
    assert torch.allclose(found[0], found[1], rtol=1e-4)


@pytest.mark.slow
def test_what_one_rank_saves_before_all_end_with_an_error_is_there(tmp_path: Path) -> None:
    """A rank that raises takes the others with it: it waits until rank 0 has committed."""
    recipe = tiny_recipe(tmp_path, "run.name=ends", "resources.num_workers=2", "data.max_bad_ratio=0.1")
    index = Index(stream_spec(recipe, 2).index_uri)
    for video in (2, 3, 7, 11):
        storage.write(index.row(video).uri, b"x" * index.row(video).num_bytes)
    with pytest.raises(ProcessRaisedException, match="max_bad_ratio"):
        train_on(2, recipe)
    found = latest(run_uri(recipe))
    assert found is not None
    assert found.step == 4
    assert len(found.state["progress"]["quarantine"]) == 4
