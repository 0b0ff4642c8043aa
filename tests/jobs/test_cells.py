"""A run whose ranks are several cells, as a user starts it: the same run as with one stream, to the last bit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from jobs import audit
from system.data.dataset import run_uri
from system.recipe import Recipe
from system.train.checkpoint import latest
from system.train.telemetry import read_metrics
from tests.conftest import RECIPES, TINY
from tests.jobs.processes import job
from tests.small import tiny_recipe
from tests.train.ranks import newest, train_on

pytestmark = pytest.mark.ray


def chain(recipe: Recipe) -> str:
    """The ledger's last link: it names every clip of every step, its pixels and its mask."""
    found = latest(run_uri(recipe))
    assert found is not None and found.ledger is not None
    return found.ledger.chain


def overrides(name: str, ranks: int, most: int) -> list[str]:
    return [
        f"run.name={name}",
        f"resources.num_workers={ranks}",
        f"resources.ranks_per_stream={most}",
        "resources.decode_actors=3",
    ]


def pretrain(storage: Path, *given: str) -> str:
    """Run the job to its end; return what it said."""
    arguments = ["--recipe", str(RECIPES / "smoke.yaml"), "--address", "local", *TINY, f"run.storage={storage}", *given]
    with job("jobs.pretrain", *arguments) as run:
        return run.wait()


def test_four_ranks_in_two_cells_train_what_four_ranks_of_one_stream_do(generated: Path) -> None:
    """The streams end after four steps, and both cells open their next one."""
    told = pretrain(generated, *overrides("cells", 4, 2), "data.blocks_per_stream=8")
    assert "complete: step 8 of 8, 128 clips" in told
    plain = tiny_recipe(generated, *overrides("one-stream", 4, 64))
    train_on(4, plain)
    cells = tiny_recipe(generated, *overrides("cells", 4, 2))
    assert chain(cells) == chain(plain)
    one, other = newest(plain), newest(cells)
    assert all(torch.equal(one[key], other[key]) for key in one)
    # By the clock of rank 0, whose step is not quite as long as those of the others.
    assert all(0 <= row["data_wait_ranks"] < math.inf for row in read_metrics(run_uri(cells)))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_run_goes_on_in_other_cells_and_its_audit_finds_every_video_once(
    generated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two cells, then one, then two of three ranks, of which one is alone."""
    for ranks, most, stop in ((4, 2, 3), (4, 4, 5), (3, 2, 8)):
        pretrain(generated, *overrides("changing", ranks, most), f"run.stop_at_step={stop}")
    plain = tiny_recipe(generated, *overrides("plain", 1, 64))
    train_on(1, plain)
    assert chain(tiny_recipe(generated, *overrides("changing", 1, 64))) == chain(plain)
    assert audit.main(["--run", str(generated / "changing")]) == 0
    assert "audit: clean: 8 steps" in capsys.readouterr().out
