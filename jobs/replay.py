"""Rebuild a past step and look at it: `python -m jobs.replay --run NAME --step 1234`.

Its batch is compared with the run's ledger; its clips are printed with their losses, the largest first, and drawn.
docs/ledger.md says what must be equal where.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobs.cli import parser, run, say
from system import storage
from system.report.replay import replay
from system.report.replayed import Replay, ReplayedClip
from system.train.folders import run_folder
from system.train.past import open_past


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("replay", "Rebuild the batch of a past step, compare it with the ledger, show its clips.")
    options.add_argument("--run", required=True, help="the run's folder, local or s3://; or its name under --storage")
    options.add_argument("--storage", default="./runs", help="run.storage of a run that is given by its name")
    options.add_argument("--step", type=int, required=True, help="which; the run's first is 0")
    options.add_argument(
        "--checkpoint", type=int, help="whose weights give the losses; default the one before the step"
    )
    options.add_argument("--hashes", action="store_true", help="print each clip's hashes")
    options.add_argument("--out", help="PNG file or s3:// object; default pictures/ in the run's folder")
    given = options.parse_args(arguments)
    folder = run_folder(given.run, given.storage)
    found = replay(open_past(folder, say), given.step, checkpoint=given.checkpoint, say=say)
    for line in report(found, hashes=given.hashes):
        say(line)
    if found.picture is not None:
        default = storage.join(folder, "pictures", f"replay_step_{given.step:08d}.png")
        out = storage.absolute(given.out) if given.out else default
        storage.write(out, found.picture)
        say(f"picture: {out}")
    say(found.verdict)
    return 0 if found.as_recorded else 1


def report(found: Replay, *, hashes: bool) -> Iterator[str]:
    """Yield the lines of a replay but for its verdict."""
    if found.not_trained:
        yield f"step {found.step} was not trained: {found.not_trained}"
    yield f"losses with the weights before step {found.weights_step}, in float32"
    yield "    loss   slot view start attempt weight video"
    for clip in sorted(found.clips, key=lambda clip: (clip.loss is None, -(clip.loss or 0.0), clip.slot, clip.view)):
        yield _line(clip, hashes=hashes)
    for slot, why in found.gone.items():
        yield f"slot {slot}: its video cannot be read now: {why}"


def _line(clip: ReplayedClip, *, hashes: bool) -> str:
    loss = "       -" if clip.loss is None else f"{clip.loss:8.4f}"
    line = f"{loss} {clip.slot:6d} {clip.view:4d} {clip.start:5d} {clip.attempt:7d} {clip.weight:6.0f} {clip.video}"
    return f"{line}  {clip.identity:016x} pixels {clip.pixels:08x} mask {clip.mask:08x}" if hashes else line


if __name__ == "__main__":
    run(main)
