"""Generate videos whose motion is known, labelled by it: `python -m jobs.make_videos --out folder --videos 64`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from jobs.cli import parser, run, say
from system import storage
from system.data.dataset import SYNTHETIC_FIELDS, make_synthetic
from system.data.masked_scenes import write_davis
from system.data.sources import build_index


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("make_videos", "Generate H.264 videos of moving objects, in a folder for each kind of motion.")
    options.add_argument("--out", required=True, help="folder or s3:// prefix")
    for name, default in SYNTHETIC_FIELDS.items():
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument(
        "--masks", action="store_true", help="frames and masks in DAVIS-2017's layout, for jobs.segment"
    )
    given = options.parse_args(arguments)
    if given.masks:
        return _with_masks(given)
    query = "&".join(f"{name}={getattr(given, name)}" for name in SYNTHETIC_FIELDS)
    out = storage.absolute(given.out)
    workers = os.cpu_count() or 1
    make_synthetic(f"synthetic://moving?{query}", out, workers, say)
    writer = build_index(out, storage.join(out, "index.parquet"), labels="folder", workers=workers)
    say(f"{writer.num_videos} videos: {writer.uri}")
    return 0


def _with_masks(given: Any) -> int:
    out, size = storage.absolute(given.out), (given.height, given.width)
    names = write_davis(out, given.videos, seed=given.seed, size=size, num_frames=given.frames)
    say(f"{len(names)} sequences of {given.frames} frames: {out}")
    return 0


if __name__ == "__main__":
    run(main)
