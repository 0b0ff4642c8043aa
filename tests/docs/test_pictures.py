"""The pictures of terminals in the docs show what the code draws."""

from __future__ import annotations

from jobs.live import view
from system.data.queues import StageNow
from system.train.live import Live
from tests.docs.pictures import checks_of_doctor, lines

# The moment that docs/pictures/live.svg shows, on a terminal of 88 columns.
DRAWN = Live(
    run="smoke",
    at_s=1000.0,
    step=44,
    steps=60,
    stop=60,
    wanted="2",
    attempts=1,
    silent_s=0.5,
    checkpoint=40,
    unkept_s=2.4,
    job_s=97.0,
    run_s=97.0,
    goodput=0.43,
    kept_here=True,
    workers=2,
    loss=0.03206,
    grad_norm=0.03323,
    lr=0.0005275,
    clips_per_s=29.3,
    data_wait=0.0,
    pace_s=1.17,
    bad_videos=0,
    price_per_hour=1.2,
    stages=(StageNow("decode", 0, 1, 1), StageNow("train", 0)),
)


def test_the_live_view_is_drawn_as_its_picture_has_it() -> None:
    drawn = lines("live.svg")
    first = next(number for number, line in enumerate(drawn) if line.startswith("smoke"))
    assert drawn[first:] == view(DRAWN, 87)


def test_the_doctors_picture_shows_checks_of_this_machine_and_of_videos() -> None:
    assert {"python", "shared memory", "key frames", "re-encoding"} <= set(checks_of_doctor())
