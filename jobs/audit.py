"""Prove that a run trained each slot of its plan once: `python -m jobs.audit --run NAME`.

Exit code 0 and a last line `audit: clean: ...`, or 1 and `audit: FAILED: ...` after every finding. docs/ledger.md says
what is proved, and what is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from jobs.cli import parser, run, say
from system import storage
from system.errors import CheckpointFault
from system.train.audit import Audit, BadVideo, audit
from system.train.folders import run_folder
from system.train.past import open_past

# Lines of one kind that are printed; `--json` has all of them.
MOST = 50


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("audit", "Prove from a run's ledger that each slot of its plan was trained once.")
    options.add_argument("--run", required=True, help="the run's folder, local or s3://; or its name under --storage")
    options.add_argument("--storage", default="./runs", help="run.storage of a run that is given by its name")
    options.add_argument("--from-step", type=int, default=0, help="compare the clips from this step on; default 0")
    options.add_argument("--to-step", type=int, help="and up to this one; default the last of the history")
    options.add_argument("--json", metavar="FILE", help="write everything that was found, a file or s3:// object")
    given = options.parse_args(arguments)
    try:
        past = open_past(run_folder(given.run, given.storage), say)
    except CheckpointFault as error:
        say(f"audit: FAILED: {error}")
        return 1
    found = audit(past, given.from_step, None if given.to_step is None else given.to_step + 1)
    for line in report(found):
        say(line)
    if given.json:
        storage.write(storage.absolute(given.json), json.dumps(found.as_dict(), indent=1).encode())
    say(found.verdict)
    return 0 if found.clean else 1


def report(found: Audit) -> Iterator[str]:
    """Yield the lines of an audit but for its verdict."""
    yield f"{found.run}: {found.steps} steps in {len({each.generation for each in found.stretches})} starts"
    made = [
        f"steps {each.first_step} to {each.stop_step - 1}: {each.ranks} ranks, generation {each.generation}"
        + (f", masks on {each.mask_device}" if each.mask_device else "")
        for each in found.stretches
    ]
    yield from _most(made, "stretches")
    for builds in {json.dumps(each.decoders, sort_keys=True): each.decoders for each in found.stretches}.values():
        yield f"decoders: {', '.join(f'{name} {build}' for name, build in sorted(builds.items())) or 'not recorded'}"
    for each in found.epochs:
        counts = f"{each.trained} trained, {each.substituted} substituted, {each.skipped} skipped"
        yield f"epoch {each.epoch}: {each.slots} slots: {counts}"
    yield from _most([_bad_line(each) for each in found.bad_videos], "videos that could not be read")
    yield from _most([f"step {step} was not trained: {why}" for step, why in found.not_trained.items()], "such steps")
    if found.lost:
        yield f"not of this history, lost and done again: {len(found.lost)} segments, such as {found.lost[0]}"
    yield from _most([finding.line() for finding in found.findings], "findings")


def _bad_line(bad: BadVideo) -> str:
    stood = [f"slot {slot}: {name or 'skipped'}" for slot, name in bad.stand_ins.items()]
    more = f", and {len(stood) - 3} more slots" if len(stood) > 3 else ""
    return f"video {bad.video_id} {bad.name}: {bad.reason} ({bad.code}); instead of it in {', '.join(stood[:3])}{more}"


def _most(lines: list[str], kind: str) -> Iterator[str]:
    yield from lines[:MOST]
    if len(lines) > MOST:
        yield f"... {len(lines) - MOST} more {kind}; --json FILE writes all of them"


if __name__ == "__main__":
    run(main)
