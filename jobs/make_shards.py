"""Pack videos into tar shards: `python -m jobs.make_shards --data ... --out ... --layout layered --stride 4`.

`as-is` keeps the bytes: fewer, larger objects. `short-gop` re-encodes smaller and with key frames close together, so
that a clip costs little to decode. `layered` re-encodes so that a clip of the same stride is decoded without the frames
that it skips. Start it again and it goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import get_args

from jobs.cli import ProgressLine, count, parser, run, say
from system import storage
from system.data.dataset import videos_index
from system.data.shards import Layout, ShardOptions, make_shards


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("make_shards", "Pack videos into tar shards, as they are or re-encoded; resumable.")
    options.add_argument("--data", required=True, help="folder, s3:// prefix or index.parquet of the source videos")
    options.add_argument("--out", required=True, help="folder or s3:// prefix for the shards and their index")
    options.add_argument("--layout", choices=get_args(Layout), default="as-is")
    options.add_argument("--videos-per-shard", type=count, default=256)
    options.add_argument("--short-side", type=count, default=256, help="re-encoded: largest shorter side, px")
    options.add_argument("--stride", type=count, default=4, help="layered: data.stride of the runs that will read it")
    options.add_argument("--key-every", type=count, help="frames between key frames; short-gop 16, layered 8 x stride")
    options.add_argument("--crf", type=int, default=23, help="re-encoded: x264 quality, smaller is better")
    options.add_argument("--workers", type=count, default=os.cpu_count() or 1, help="videos worked on side by side")
    given = options.parse_args(arguments)
    out = storage.absolute(given.out)
    source = videos_index(given.data, storage.join(out, "source.parquet"), say, given.workers)
    say(f"{source.num_videos} videos of {source.uri}")
    line = ProgressLine()
    layers = given.stride if given.layout == "layered" else 0
    key_every = given.key_every or (8 * layers or 16)
    shape = ShardOptions(given.layout, given.videos_per_shard, given.short_side, key_every, given.crf, layers)
    writer = make_shards(
        source,
        out,
        shape,
        workers=given.workers,
        progress=lambda done, total: line.show(f"{done}/{total} videos", last=done == total),
    )
    line.end()
    for bad in writer.rejected[:5]:
        say(f"  left out: {bad.name}: {bad.reason}")
    say(f"{writer.num_videos} videos, {len(writer.rejected)} left out: {writer.uri}")
    return 0


if __name__ == "__main__":
    run(main)
