"""Check a recipe, its data, its run folder and the cluster before a run: `python -m jobs.preflight --recipe ...`.

The same checks run at the start of `pretrain`; here every one of them is tried, and all results are shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from jobs import checks
from jobs.cli import duration, parser, positive, recipe_arguments, run, say
from jobs.settled import settled
from system.data.classes import read_classes
from system.data.dataset import check_rejected, ensure_index, ensure_labels, run_uri
from system.data.index import Index
from system.data.labels import examples
from system.errors import TubeletError
from system.recipe import Recipe, load_recipe
from system.train.launch import connect
from system.train.schedule import schedule_of


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("preflight", "Check a recipe, its data, its run folder and the cluster before a run.")
    recipe_arguments(options)
    options.add_argument("--address", help="Ray cluster; `local` starts one here; default RAY_ADDRESS, then local")
    options.add_argument("--no-cluster", action="store_true", help="do not look at a cluster")
    options.add_argument("--rate", type=positive, metavar="CLIPS_PER_S", help="say how long the run takes at this rate")
    given = options.parse_intermixed_args(arguments)
    told: list[str] = []
    recipe = settled(load_recipe(given.recipe, given.overrides, told=told), say)
    for line in told:
        say(line)
    data, labels = partial(checks.check_data, recipe), partial(_labels, recipe)
    tried: list[Callable[[], checks.Finding]] = [
        lambda: checks.check_layout(recipe),
        lambda: checks.check_trackers(recipe),
        lambda: checks.check_storage(recipe),
        lambda: checks.check_lease(recipe),
        data,
        labels,
        lambda: _index(recipe),
        lambda: checks.check_sample(recipe, ensure_index(recipe)),
        lambda: checks.check_motion_weights(recipe),
        lambda: checks.check_frozen(recipe),
        lambda: checks.check_init_from(ensure_labels(recipe)),
        lambda: checks.check_probe(recipe, say),
        lambda: _length(recipe, given.rate),
    ]
    if not given.no_cluster:
        tried.append(lambda: _cluster(recipe, given.address))
    worst = 0
    for check in tried:
        try:
            finding = check()
            say(f"{'WARN ' if finding.warns else 'ok   '} {finding.check:11s} {finding.says}")
        except TubeletError as error:
            worst = max(worst, error.exit_code)
            say(f"BAD   {type(error).__name__}: {error}")
            if check in (data, labels):
                break  # without data or labels there is no index, no sample and no length
    say("ready to train" if not worst else "not ready: mend what is marked BAD")
    return worst


def _labels(recipe: Recipe) -> checks.Finding:
    ensure_labels(recipe, workers=os.cpu_count() or 2, say=say)
    if not recipe.record.labelled:
        return checks.Finding("labels", f"not needed by {recipe.method.name}")
    classes = read_classes(run_uri(recipe))
    return checks.Finding("labels", f"{len(classes)} classes: {examples(classes)}")


def _index(recipe: Recipe) -> checks.Finding:
    index = Index(ensure_index(recipe, workers=os.cpu_count() or 2, say=say))
    check_rejected(recipe, index)
    return checks.Finding("index", f"{index.num_videos} videos, {index.num_rejected} rejected: {index.uri}")


def _length(recipe: Recipe, rate: float | None) -> checks.Finding:
    schedule = schedule_of(recipe, Index(ensure_index(recipe)).num_videos)
    clips = schedule.total * recipe.train.global_batch
    at_rate = f"; {duration(clips / rate)} at {rate:g} clips/s" if rate else "; give --rate for the hours"
    return checks.Finding(
        "length",
        f"{schedule.total} steps, {clips} clips, learning rate {schedule.peak:.3g} after {schedule.warmup} steps of"
        f" warm-up{at_rate}",
    )


def _cluster(recipe: Recipe, address: str | None) -> checks.Finding:
    return checks.check_cluster(recipe, fixed=connect(recipe, address))


if __name__ == "__main__":
    run(main)
