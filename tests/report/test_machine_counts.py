from __future__ import annotations

import cv2
import numpy as np

from system.report.machine_counts import COMING, MARK, THERE, Look, Mark, Timeline, timeline_from, timeline_picture

KINDS = ["decode", "train"]
TIMELINE = Timeline(
    [
        Look(0.0, {"decode": 0, "train": 0}, asked=[({"CPU": 1.0, "decode": 1.0}, 2)]),
        Look(5.0, {"decode": 1, "train": 1}, {"decode": 1}, 3),
        Look(9.0, {"decode": 1, "train": 1}, {"decode": 1}, 5),
        Look(20.0, {"decode": 0, "train": 1}, {}, 9),
    ],
    [Mark(5.0, "the first step")],
)


def colours(kinds: list[str], timeline: Timeline = TIMELINE) -> set[tuple[int, ...]]:
    image = cv2.imdecode(np.frombuffer(timeline_picture(timeline, kinds, "machines"), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return {tuple(reversed(each)) for each in np.unique(image.reshape(-1, 3), axis=0).tolist()}


def test_changes_are_told_once_with_their_times() -> None:
    assert TIMELINE.changes("decode") == [(0.0, 0), (5.0, 1), (20.0, 0)]
    assert list(TIMELINE.lines(KINDS)) == ["decode: 0 at 0 s, 1 at 5 s, 0 at 20 s", "train: 0 at 0 s, 1 at 5 s"]


def test_a_timeline_is_read_as_it_was_written() -> None:
    assert timeline_from(TIMELINE.as_json()).as_json() == TIMELINE.as_json()
    assert timeline_from(TIMELINE.as_json()).looks[0].asked == TIMELINE.looks[0].asked


def test_the_picture_shows_what_is_there_what_is_coming_and_what_happened() -> None:
    assert {THERE, COMING, MARK} <= colours(KINDS)
    assert COMING not in colours(["train"])
    assert not {THERE, COMING, MARK} & colours(KINDS, Timeline(TIMELINE.looks[:1]))
