"""Audits of runs that were trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from system.data.assemble import local_blocks
from system.data.columns import Batch
from system.data.dataset import ensure_index, run_uri
from system.errors import StreamFault
from system.recipe import Recipe
from system.train.audit import Audit, audit
from system.train.hooks import Terms
from system.train.past import open_past
from system.train.session import Watchers, train_rank
from tests.small import stream_spec, tiny_recipe
from tests.train.ranks import train_here
from tests.train.recorded import keep_recipe

QUICK = ("data.num_frames=2", "model.depth=1", "checkpoint.every_steps=3", "train.steps=7")


def run(generated: Path, name: str, *overrides: str) -> Recipe:
    recipe = tiny_recipe(generated, f"run.name={name}", "resources.num_workers=1", *QUICK, *overrides)
    keep_recipe(recipe)
    return recipe


def audited(recipe: Recipe) -> Audit:
    return audit(open_past(run_uri(recipe)))


def test_a_run_that_was_killed_between_checkpoints_and_went_on_is_clean(generated: Path) -> None:
    recipe = run(generated, "audited-killed")

    def die(values: dict[str, object]) -> None:
        if values["step"] == 4:
            raise StreamFault("killed")

    with pytest.raises(StreamFault, match="killed"):
        train_here(recipe, Watchers(on_step=die))
    train_here(recipe, terms=Terms(generation=0))
    found = audited(recipe)
    assert found.clean, found.findings
    assert found.verdict == (
        "audit: clean: 7 steps, 112 slots once each, 0 by substitutes, 0 skipped; steps 0 to 6 compared"
    )
    assert [each.trained for each in found.epochs] == [16] * 7


def fed(recipe: Recipe, change: Callable[[list[Batch]], list[Batch]]) -> Audit:
    """Train on other blocks than the stream's, and audit."""
    spec = stream_spec(recipe, 1)

    def blocks() -> Iterator[Batch]:
        yield from change(list(local_blocks(spec, 0, 0)))

    train_rank(recipe, ensure_index(recipe), 0, blocks)
    return audited(recipe)


def test_a_wrong_block_that_is_fed_to_the_model_fails_the_audit_at_its_step(generated: Path) -> None:
    """Of four blocks a step the second one of step 4 is that of step 3."""

    def wrong(blocks: list[Batch]) -> list[Batch]:
        blocks[4 * 4 + 1] = {**blocks[3 * 4 + 1], "step": blocks[4 * 4 + 1]["step"]}
        return blocks

    found = fed(run(generated, "audited-wrong", "data.clips_per_block=4"), wrong)
    assert [finding.step for finding in found.findings] == [4]


def test_a_step_that_is_repeated_fails_the_audit(generated: Path) -> None:
    def repeated(blocks: list[Batch]) -> list[Batch]:
        return [*blocks[:4], {**blocks[3], "step": blocks[4]["step"]}, *blocks[5:]]

    found = fed(run(generated, "audited-repeated"), repeated)
    assert [finding.step for finding in found.findings] == [4]
    assert "the clips of step 3" in found.findings[0].line()


def test_a_step_whose_videos_are_passed_over_is_listed_with_its_reason(generated: Path) -> None:
    recipe = run(generated, "audited-skips")
    train_here(recipe, terms=Terms(skips={2: "the loss was not finite"}))
    found = audited(recipe)
    assert found.clean, found.findings
    assert found.not_trained == {2: "the loss was not finite"}
    assert found.epochs[2].skipped == 16
