"""The stages' actors tell the clock which block they work on, by the names that the ranks use."""

from __future__ import annotations

from pathlib import Path

import pytest

from system.benchmark.stand_in import Pace, stand_ins
from system.data.clock import wait_for
from system.data.pipeline import TELL_S
from system.data.reports import block_name
from tests.small import stream_spec, tiny_recipe
from tests.stream.streams import recording_clock, take

pytestmark = pytest.mark.ray


def test_who_works_long_on_a_block_tells_it_and_its_end_and_who_is_quick_tells_nothing(
    ray_session: None, generated: Path
) -> None:
    recipe = tiny_recipe(generated, "train.steps=2")
    spec = stream_spec(recipe, 2)
    slow = stand_ins(Pace(clip_s=1.5 * TELL_S / spec.layout.clips_per_block))
    with recording_clock() as clock:
        take(spec, clock, lambda *_: True, makers=slow)
        told = sorted(wait_for(clock.heard.remote()), key=lambda report: report.told_at)
        left = wait_for(clock.reports.remote())
    blocks = {block_name(spec.layout, number) for number in range(spec.layout.first_block(2))}
    assert {report.role for report in told} == {"decode"}
    assert {report.what for report in told if report.phase} == blocks
    assert [report.phase for report in told] == ["work", None] * len(blocks)
    assert not left
