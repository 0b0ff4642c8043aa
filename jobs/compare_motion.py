"""Compare motion sources on videos: `python -m jobs.compare_motion --data "synthetic://moving?videos=11"`.

Prints what each source costs and how well its flow and its masks agree with the truth (generated videos) or with the
best source at hand, and draws a few clips as every source sees them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from jobs.cli import count, parser, run, say
from system import storage
from system.report.motion_comparison import Asked, compare_sources, comparison_recipe
from system.report.motion_sources import ALL, Weights


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("compare_motion", "Cost and agreement of motion sources, as a table and a picture.")
    options.add_argument("--data", required=True, help="folder or prefix of videos, index.parquet or synthetic://...")
    options.add_argument("--sources", default=",".join(ALL), help="names with commas between them; default: all")
    options.add_argument("--weights", help="URI of RAFT-small's weights; raft is left out without them")
    options.add_argument("--random-weights", action="store_true", help="raft with random weights, for its cost alone")
    options.add_argument("--clips", type=count, default=11)
    options.add_argument("--frames", type=int, default=16, help="frames of a clip")
    options.add_argument("--size", type=int, default=224, help="side of a clip, px")
    options.add_argument("--stride", type=int, default=4, help="original frames from one sampled frame to the next")
    options.add_argument("--mask-ratio", type=float, default=0.9)
    options.add_argument("--device", default="cpu", help="torch device of raft")
    options.add_argument("--pictures", type=int, default=3, help="clips on the picture; 0: no picture")
    options.add_argument("--out", default="./motion", help="folder of the picture, of generated videos and the index")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)  # what a source costs on one core
    recipe = comparison_recipe(
        given.data,
        given.out,
        num_frames=given.frames,
        size=given.size,
        stride=given.stride,
        mask_ratio=given.mask_ratio,
    )
    weights = Weights(given.weights, given.random_weights)
    asked = Asked(tuple(given.sources.split(",")), weights, given.clips, given.device, given.pictures)
    text, picture = compare_sources(recipe, asked, say)
    say(text)
    if picture is not None:
        uri = storage.join(storage.absolute(given.out), "motion_sources.png")
        storage.write(uri, picture)
        say(f"\n{uri}")
    return 0


if __name__ == "__main__":
    run(main)
