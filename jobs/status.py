"""How a run stands, read from its folder: `python -m jobs.status --run s3://bucket/runs/NAME [--watch]`.

From any machine that can read the folder; needs neither Ray nor torch. Exit code 0: it runs, or all its steps are done;
1: no job is at work on it, and steps are left; 2: there is no such run.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from jobs import terminal
from jobs.cli import ProgressLine, duration, parser, run, say
from jobs.live import live_line, painted, state_of, view
from system import logs, storage
from system.errors import RunError
from system.train.afar import Sight, look
from system.train.folders import run_folder

# A driver writes every ten seconds; two looks in that time miss nothing for long.
EVERY_S = 5.0
# What was written longer ago than this is called old, seconds.
OLD_S = 30.0
# The view's width where it is printed once, columns; a narrower terminal gets a narrower one.
WIDTH = 80


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("status", "How a run stands, from its folder; on any machine that can read it.")
    options.add_argument("--run", required=True, help="the run's folder, local or s3://; or its name under --storage")
    options.add_argument("--storage", default="./runs", help="run.storage of a run that is given by its name")
    options.add_argument("--watch", action="store_true", help="look again every few seconds until the run ends")
    options.add_argument("--every", type=float, default=EVERY_S, metavar="S", help=f"with --watch; default {EVERY_S:g}")
    options.add_argument("--json", action="store_true", help="print one object with all of it")
    given = options.parse_args(arguments)
    if given.every <= 0:
        options.error(f"--every needs seconds above 0, got {given.every:g}")
    folder = run_folder(given.run, given.storage)
    _check_reads(folder)
    seen = look(folder)
    if seen.state == "never":
        raise RunError(seen.says)
    if given.json:
        print(json.dumps(seen.as_dict()))
    elif given.watch:
        seen = _watch(folder, seen, given.every)
    else:
        _tell(seen)
    return 0 if seen.state in ("running", "complete") else 1


def _check_reads(folder: str) -> None:
    """Refuse a bucket where nothing is installed that reads it."""
    try:
        importlib.import_module("boto3" if storage.is_s3(folder) else "json")
    except ImportError as error:
        raise RunError(
            f"{folder} is in a bucket, and boto3, which reads it, is not installed here: pip install boto3"
        ) from error


def shown(seen: Sight, width: int) -> list[str]:
    """Return the view of a run that was seen from afar."""
    assert seen.live is not None
    live = replace(seen.live, unkept_s=seen.live.unkept_s + seen.age_s)
    if seen.state != "running":
        return painted(view(live, width, seen.state), alarm=seen.state != "complete")
    doing = state_of(live)
    state = doing if seen.age_s <= OLD_S else f"{doing}, {duration(seen.age_s)} ago"
    return painted(view(live, width, state), alarm=doing.startswith("no step"))


def _tell(seen: Sight) -> None:
    """Print it once: the view, or a record where records are wanted."""
    say(seen.says)
    if seen.live is None:
        say("nothing was written yet of how it goes: it is before its first attempt")
    elif logs.context().style == "json":
        say(live_line(seen.live))
    else:
        colours = sys.stdout.isatty() and terminal.can_move(os.environ)
        for line in shown(seen, min(WIDTH, terminal.size()[0]) if colours else WIDTH):
            print(line if colours else terminal.bare(line))


def _watch(folder: str, seen: Sight, every_s: float) -> Sight:
    """Show a run until it is no longer under way; return what was seen last."""
    line, says = ProgressLine(), ""
    try:
        while True:
            if seen.says != says:
                line.between(says := seen.says)
            if seen.live is not None:
                line.show(live_line(seen.live), view=partial(shown, seen), last=seen.state != "running")
            if seen.state != "running":
                return seen
            time.sleep(every_s)
            seen = look(folder)
    finally:
        line.end()


if __name__ == "__main__":
    run(main)
