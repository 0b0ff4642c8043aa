"""Moments of runs, made by hand."""

from __future__ import annotations

from system.data.queues import StageNow
from system.train.live import Live

STARTING = Live(
    run="smoke",
    at_s=1000.0,
    step=0,
    steps=120,
    stop=120,
    wanted="2",
    attempts=1,
    silent_s=4.0,
    checkpoint=0,
    unkept_s=4.0,
    job_s=9.0,
    run_s=9.0,
    goodput=0.0,
)
TRAINING = Live(
    run="videomae-vitb-k400-on-everything-that-we-have",
    at_s=1000.0,
    step=48,
    steps=120,
    stop=120,
    wanted="1 to 4",
    attempts=2,
    silent_s=0.5,
    checkpoint=40,
    unkept_s=22.0,
    job_s=724.0,
    run_s=4501.0,
    goodput=0.91,
    kept_here=True,
    workers=3,
    loss=0.03125,
    grad_norm=0.4512,
    lr=0.0012,
    clips_per_s=46.94,
    data_wait=0.013,
    mfu=None,
    pace_s=1.37,
    bad_videos=7,
    price_per_hour=19.58,
    stages=(StageNow("decode", 3, 2, 4), StageNow("mask", 0, 1, 1), StageNow("train", 4)),
)
