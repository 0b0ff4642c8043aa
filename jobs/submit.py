"""Submit a run to a cluster and follow it: `python -m jobs.submit --address http://127.0.0.1:8265 --recipe FILE`.

The same command again follows the run if it is under way, and resumes it if it has ended. Ctrl-C ends the following,
not the run; `--stop` ends the run, with a checkpoint. Exit code 0 when the run is done, 143 when it was stopped.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli import STOPPED, ProgressLine, parser, recipe_arguments, run, say
from system.access import send_token
from system.errors import RecipeError, RunError
from system.logs import heard
from system.recipe import load_recipe
from system.submit.order import check_address, elsewhere, make_order, submission_id, told_clear_text, told_storage

if TYPE_CHECKING:
    from system.submit.client import Dashboard
    from system.submit.follow import Seen

PROGRESS = re.compile(r"step \d+/\d+  loss ")


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    given = _options(arguments)
    address = given.address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise RecipeError("--address is missing: the dashboard's, such as http://127.0.0.1:8265")
    told: list[str] = []
    recipe = load_recipe(given.recipe, given.overrides, told=told)
    order = make_order(recipe, given.recipe, given.overrides, Path(given.folder))
    address = check_address(address, os.environ)
    send_token(os.environ)
    from system.submit.client import Dashboard, check_open  # noqa: PLC0415  a second, and mistakes are told before it

    open_to_all = check_open(address, elsewhere=elsewhere(address))
    cluster = Dashboard(address)
    newest = cluster.newest(order.name)
    job = submission_id(order.name, newest)
    if given.status or given.stop or given.resume:
        if not newest:
            raise RunError(f"{recipe.run.name} was not submitted to {address}")
        if given.status:
            return _tell_status(cluster, job)
        if given.stop:
            return _stop(cluster, job)
    for line in [*told, *filter(None, [told_storage(recipe), told_clear_text(address), open_to_all])]:
        say(line)
    job, new = cluster.submit(order)
    say(f"{'submitted' if new else 'under way, and followed from its beginning'}: {job} at {address}")
    if given.no_follow:
        return 0
    return _follow(cluster, job)


def _options(arguments: Sequence[str]) -> Namespace:
    options = parser("submit", "Submit a run to a cluster and follow it; the same command again resumes it.")
    recipe_arguments(options)
    options.add_argument("--address", help="the cluster's dashboard, http://host:8265; default RAY_API_SERVER_ADDRESS")
    options.add_argument("--folder", default=".", help="what is uploaded: a checkout of this project")
    what = options.add_mutually_exclusive_group()
    what.add_argument("--status", action="store_true", help="say how the run's newest submission stands")
    what.add_argument("--stop", action="store_true", help="stop it: a checkpoint first; it stays resumable")
    what.add_argument("--resume", action="store_true", help="submit only a run that was submitted before")
    options.add_argument("--no-follow", action="store_true", help="return when the run is submitted")
    return options.parse_intermixed_args(arguments)


class _View:
    """A job's lines for a person: of its progress one line that is written over, where there is a terminal."""

    def __init__(self) -> None:
        self._progress = ProgressLine()

    def line(self, text: str) -> None:
        """Show a line of the job's."""
        text = heard(text)  # telemetry.logs=json: records are for machines
        if PROGRESS.match(text):
            self._progress.show(text)
        else:
            self.note(text)

    def note(self, text: str) -> None:
        """Show a line that is not about progress."""
        self._progress.end()
        say(text)

    def end(self) -> None:
        """Leave the progress line."""
        self._progress.end()


def _follow(cluster: Dashboard, job: str) -> int:
    from system.submit.follow import Follower  # noqa: PLC0415

    view = _View()
    try:
        seen = Follower(cluster, job, view.line, view.note).follow()
    except KeyboardInterrupt:
        view.end()
        say(f"{job} goes on; the same command follows it again, --stop ends it")
        raise
    finally:
        view.end()
    return _told_end(job, seen)


def _told_end(job: str, seen: Seen) -> int:
    """Say how a job ended and return the exit code."""
    if seen.status == "SUCCEEDED":
        say(f"done: {job}")
        return 0
    if seen.status == "STOPPED" or seen.exit_code == STOPPED:
        say(f"stopped: {job}; the same command resumes the run")
        return STOPPED
    say(f"failed: {job}: {seen.message}")
    return seen.exit_code if seen.exit_code in (1, 2) else 1


def _tell_status(cluster: Dashboard, job: str) -> int:
    seen = cluster.status(job)
    lines = [heard(line) for line in cluster.words(job).splitlines()]
    progress = next((line for line in reversed(lines) if PROGRESS.match(line)), None)
    say("\n".join(filter(None, [f"{job}: {seen.status}", seen.message if seen.ended else None, progress])))
    return 0


def _stop(cluster: Dashboard, job: str) -> int:
    if cluster.status(job).ended:
        say(f"{job} has ended already")
        return 0
    cluster.stop(job)
    say(f"{job} is told to stop: it writes a checkpoint and ends")
    return 0 if _follow(cluster, job) in (0, STOPPED) else 1


if __name__ == "__main__":
    run(main)
