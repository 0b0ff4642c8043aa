"""See how a run went: `python -m jobs.report --run NAME` writes report.html into its folder; `--runs` compares some.

A run writes its report at its end by itself; this makes it anew, of any run that this machine can read, done or not.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import REFERENCES, parser, run, say
from system import storage
from system.report.compare_runs import comparison
from system.report.gallery import MOST, Gallery
from system.report.run_files import RunFiles, read_run
from system.report.run_report import gallery_of_run, write_report
from system.train.folders import run_folder


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("report", "Write a run's report, one HTML page, into its folder; or compare runs on one page.")
    which = options.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", help="the run's folder, local or s3://; or its name under --storage")
    which.add_argument("--runs", nargs="+", metavar="RUN", help="runs to compare, each as --run says")
    options.add_argument("--storage", default="./runs", help="run.storage of runs that are given by their names")
    options.add_argument("--out", metavar="FILE", help="where the comparison is written, a file or s3:// object")
    options.add_argument("--clips", type=int, default=MOST, help=f"clips of the gallery, 0 to {MOST}; default {MOST}")
    options.add_argument("--no-audit", action="store_true", help="do not compare the ledger with the plan")
    given = options.parse_args(arguments)
    if given.runs and not given.out:
        options.error("--runs needs --out FILE, where the comparison is written")
    if given.run and given.out:
        options.error("--out is for --runs; the report of one run is written into its folder")
    if not 0 <= given.clips <= MOST:
        options.error(f"--clips is 0 to {MOST}, got {given.clips}")
    folders = [run_folder(each, given.storage) for each in given.runs or [given.run]]
    runs = [read_run(folder, with_audit=not given.no_audit) for folder in folders]
    if given.runs:
        out = storage.absolute(given.out)
        storage.write(out, comparison(runs, REFERENCES).encode())
        say(f"comparison: {out}")
        return 0
    uri, verdict = write_report(runs[0], gallery_or_reason(runs[0], given.clips), REFERENCES)
    say(f"{verdict.headline.lower()}: {verdict.reason}")
    say(f"report: {uri}")
    return 0


def gallery_or_reason(found: RunFiles, clips: int) -> Gallery | str:
    """Return the gallery of a run, or why there is none: what cannot be read is no reason to stop."""
    try:
        return gallery_of_run(found, clips)
    except Exception as error:  # noqa: BLE001  a page without a gallery is still a page
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    run(main)
