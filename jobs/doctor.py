"""What may be wrong before a run finds out: `python -m jobs.doctor [--data URI] [--cluster ADDRESS]`.

Looks at this machine, at videos and at a cluster, and says of each finding why it matters and which command mends it.
Neither Ray nor a GPU is needed but for --cluster. Exit code 1 if a run would fail.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs import terminal
from jobs.cli import amount, count, parser, run, say
from system import logs, storage
from system.doctor.findings import Finding, exit_code, told
from system.errors import TubeletError
from system.recipe import Recipe, load_recipe

SMOKE = Path(__file__).parent / "recipes" / "smoke.yaml"
# What is looked at where no recipe says how clips are cut: as most published recipes cut them.
USUAL = ("data.num_frames=16", "data.stride=4", "data.size=224")
SAMPLE = 64
WIDTH = 100


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    given = options_from(arguments)
    own = given.recipe is not None
    notes: list[str] = []
    recipe = load_recipe(given.recipe or SMOKE, [*given.overrides] if own else [*USUAL, *given.overrides], told=notes)
    for line in notes:
        say(line)
    if given.json:
        storage.check_writable(storage.absolute(given.json))
    data = given.data or (recipe.data.uri if own and "synthetic://" not in recipe.data.uri else None)
    parts: list[Callable[[], list[Finding]]] = [lambda: _environment(recipe)]
    if data is not None:
        parts.append(lambda: look_at_videos(data, recipe, given))
    if given.cluster is not None:
        parts.append(lambda: _cluster(recipe, given.cluster))
    findings = [finding for part in parts for finding in part()]
    _tell(findings)
    if given.json:
        text = json.dumps({"findings": [each.as_dict() for each in findings]}, indent=1)
        storage.write(storage.absolute(given.json), text.encode())
    return exit_code(findings)


def options_from(arguments: Sequence[str]) -> Namespace:
    """Return the arguments."""
    options = parser("doctor", "What may be wrong with this machine, videos or a cluster, and how to mend it.")
    options.add_argument("--data", help="folder or s3:// prefix of videos and tar shards, or an index.parquet")
    options.add_argument(
        "--recipe", help="YAML file: how clips are cut, what stages want; default 16 x 224 px, stride 4"
    )
    options.add_argument("overrides", nargs="*", metavar="section.field=value", help="laid over the recipe")
    options.add_argument("--cluster", metavar="ADDRESS", help="look at this Ray cluster; `local` starts one here")
    many = options.add_mutually_exclusive_group()
    many.add_argument("--sample", type=count, default=SAMPLE, metavar="N", help=f"videos looked at; default {SAMPLE}")
    many.add_argument("--whole", action="store_true", help="look at all videos")
    options.add_argument(
        "--seconds", type=amount, default=20.0, help="for trying re-encoding; 0 leaves it out; default 20"
    )
    options.add_argument("--workers", type=count, default=os.cpu_count() or 1, help="videos looked at side by side")
    options.add_argument("--json", metavar="FILE", help="write all findings there, a file or s3:// object")
    return options.parse_intermixed_args(arguments)


def _tell(findings: Sequence[Finding]) -> None:
    """Print the findings, or a record of each."""
    if logs.context().style == "json":
        for each in findings:
            print(logs.told(each.what, **{name: value for name, value in each.as_dict().items() if name != "what"}))
        return
    on_terminal = sys.stdout.isatty()
    width = min(WIDTH, terminal.size()[0]) if on_terminal else WIDTH
    lines = told(findings, width, colours=on_terminal and terminal.can_move(os.environ))
    say("\n".join(["", *lines]))


def _environment(recipe: Recipe) -> list[Finding]:
    from system.doctor.environment import environment  # noqa: PLC0415  mistakes in arguments are told before it

    where = recipe.run.storage
    return environment([] if storage.is_s3(where) else [str(storage.local_path(where))])


def look_at_videos(uri: str, recipe: Recipe, given: Namespace) -> list[Finding]:
    """Look at videos; what a person has to mend before anything can be seen is a finding as well."""
    from system.doctor.survey import survey  # noqa: PLC0415  libraries that the environment's part looks at
    from system.doctor.videos import PART, findings  # noqa: PLC0415

    try:
        found = survey(uri, recipe, None if given.whole else given.sample, given.workers, say)
        reencoded = None
        if given.seconds and found.clips:
            from system.planning.reencode_probe import probe_reencoding  # noqa: PLC0415  torch

            say(f"re-encoding a few of them for {given.seconds:.0f} s")
            whole = [each for each in found.videos if each.name in found.clips]
            reencoded = probe_reencoding(recipe, whole, given.seconds)
        return findings(found, recipe, reencoded)
    except TubeletError as error:
        why = "without videos there is no run"
        fix = (
            "--data takes a folder or s3:// prefix of videos and tar shards, or an index.parquet; for other stores than"
        )
        return [Finding(PART, "videos", "error", str(error), why, f"{fix} AWS set AWS_ENDPOINT_URL")]


def _cluster(recipe: Recipe, address: str) -> list[Finding]:
    """Look at a cluster: whether it lets us in, and whether each stage has room there."""
    from jobs.doctor_cluster import cluster, unreachable  # noqa: PLC0415  Ray

    try:
        return cluster(recipe, address)
    except TubeletError as error:
        return [unreachable(address, error)]


if __name__ == "__main__":
    run(main)
