from __future__ import annotations

import json

from system.data.notes import Note
from system.train.progress import Progress, StepCounts, progress_from


def test_a_video_keeps_its_first_verdict() -> None:
    progress = Progress().after(StepCounts(16, 1, 0), [Note(3, 7, 0, "open", "no video")])
    progress = progress.after(
        StepCounts(16, 0, 1), [Note(20, 7, 0, "deadline", "slow"), Note(20, 9, 1, "short", "3 frames")]
    )
    assert progress == Progress(2, 32, 1, 1, {7: ("open", "no video"), 9: ("short", "3 frames")}, 32, 2, updates=2)


def test_it_survives_json() -> None:
    progress = Progress(4, 64, 2, 1, {7: ("open", "é")})
    assert progress_from(json.loads(json.dumps(progress.as_dict()))) == progress


def test_few_slots_say_nothing_about_the_share_of_bad_ones() -> None:
    assert not Progress(recent_slots=49, recent_bad=49).too_many_bad(0.1)
    assert Progress(recent_slots=50, recent_bad=6).too_many_bad(0.1)
    assert not Progress(recent_slots=50, recent_bad=5).too_many_bad(0.1)


def test_the_share_of_bad_videos_is_that_of_the_last_ones() -> None:
    progress = Progress()
    for _ in range(10_000):
        progress = progress.after(StepCounts(384, 0, 0), [])
    steps = 0
    while not progress.too_many_bad(0.1):
        progress, steps = progress.after(StepCounts(384, 0, 384), []), steps + 1
    assert steps <= 3


def test_a_start_forgets_what_was_missing_then_and_keeps_what_is_broken() -> None:
    progress = Progress(4, 64, 2, 1, {7: ("storage", "gone"), 8: ("open", "no video")}, 64, 3)
    assert progress.at_start() == Progress(4, 64, 2, 1, {8: ("open", "no video")})
