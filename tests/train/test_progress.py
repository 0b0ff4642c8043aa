from __future__ import annotations

import json

from system.data.notes import Note
from system.train.progress import Progress, progress_from


def test_a_video_keeps_its_first_verdict() -> None:
    progress = Progress().after(16, 1, 0, [Note(3, 7, 0, "open", "no video")])
    progress = progress.after(16, 0, 1, [Note(20, 7, 0, "deadline", "slow"), Note(20, 9, 1, "short", "3 frames")])
    assert progress == Progress(2, 32, 1, 1, {7: ("open", "no video"), 9: ("short", "3 frames")})


def test_it_survives_json() -> None:
    progress = Progress(4, 64, 2, 1, {7: ("open", "é")})
    assert progress_from(json.loads(json.dumps(progress.as_dict()))) == progress


def test_few_slots_say_nothing_about_the_share_of_bad_ones() -> None:
    assert not Progress(1, 49, 49, 0).too_many_bad(0.1)
    assert Progress(1, 50, 0, 6).too_many_bad(0.1)
    assert not Progress(1, 50, 0, 5).too_many_bad(0.1)
