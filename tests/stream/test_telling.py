"""The stages' actors tell the clock which block they work on, by the names that the ranks use."""

from __future__ import annotations

from pathlib import Path

import pytest

from system.data.clock import wait_for
from system.data.reports import block_name
from tests.small import stream_spec, tiny_recipe
from tests.stream.streams import recording_clock, take

pytestmark = pytest.mark.ray


def test_readers_and_decoders_tell_each_block_and_that_they_have_finished_it(
    ray_session: None, generated: Path
) -> None:
    spec = stream_spec(tiny_recipe(generated, "train.steps=6"), 2)
    with recording_clock() as clock:
        take(spec, clock, lambda *_: True)
        told = wait_for(clock.heard.remote())
        left = wait_for(clock.reports.remote())
    blocks = {block_name(spec.layout, number) for number in range(spec.layout.first_block(6))}
    for role in ("read", "decode"):
        mine = [report for report in told if report.role == role]
        assert {report.what for report in mine if report.phase} == blocks
        assert [report.phase for report in mine] == ["work", None] * len(blocks)
    assert not left
