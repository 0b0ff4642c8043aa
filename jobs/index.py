"""Index a folder or prefix of videos and tar shards: `python -m jobs.index --data s3://bucket/videos`.

A run makes its own index where there is none; one that is made once serves all runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from jobs.cli import ProgressLine, count, parser, run, say
from system import storage
from system.data.index import rejected_uri
from system.data.sources import build_index


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("index", "Probe every video under a folder or prefix and write index.parquet.")
    options.add_argument("--data", required=True, help="folder or s3:// prefix of videos and tar shards")
    options.add_argument("--out", help="where the index goes; default DATA/index.parquet, which every run finds")
    options.add_argument("--labels", choices=("none", "folder"), default="none", help="label videos by their folder")
    options.add_argument("--workers", type=count, default=2 * (os.cpu_count() or 1), help="videos probed side by side")
    given = options.parse_args(arguments)
    out = storage.absolute(given.out or storage.join(given.data, "index.parquet"))
    storage.check_writable(out)
    line = ProgressLine()
    writer = build_index(
        given.data,
        out,
        labels=given.labels,
        workers=given.workers,
        progress=lambda done, bad: line.show(f"{done} videos, {bad} rejected"),
    )
    line.end()
    if writer.rejected:
        say(f"{len(writer.rejected)} files are no videos that can be read, listed in {rejected_uri(out)}; the first:")
        for bad in writer.rejected[:5]:
            say(f"  {bad.name}: {bad.reason}")
    say(f"{writer.num_videos} videos: {out}")
    return 0


if __name__ == "__main__":
    run(main)
