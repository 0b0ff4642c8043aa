"""A run from its recipe to its summary: what every job that trains does after it has a recipe."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from jobs.checks import after_connecting, before_connecting, tell_init_from
from jobs.cli import STOPPED, ProgressLine, duration, say
from jobs.closing import shown, written
from jobs.live import live_line, live_view
from jobs.settled import SUBMITTED, settled
from system import logs
from system.benchmark.machine import describe
from system.data.dataset import check_rejected, ensure_index, ensure_labels, run_uri
from system.data.index import Index
from system.evaluate.online import OnlineProbe
from system.monitoring.export import Exporter
from system.recipe import Recipe
from system.train.attempts import Ending, train
from system.train.elastic import told_workers
from system.train.goodput import Book
from system.train.launch import RunState, connect, open_run
from system.train.lease import Lease
from system.train.planned import told_plan
from system.train.schedule import Schedule
from system.train.shift import Shift
from system.train.starts import Starts
from system.train.summary import write_summary
from system.train.trackers import Trackers
from system.train.watch import Watch

# How long Ray waits between a submitted job's SIGTERM and its SIGKILL, seconds; read by Ray, of the job's environment.
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
RAYS_STOP_WAIT_S = 3.0
# How long a job may take to stop where nobody says it, and what it needs of the time after its workers' end, seconds.
GRACE_S = 60.0
AFTERWARDS_S = 5.0
# What a record of progress holds of the newest values of metrics.jsonl.
PROGRESS = ("loss", "clips_per_s", "data_wait", "step_s", "grad_norm", "lr")


def stop_grace_s(environment: Mapping[str, str]) -> float:
    """Return how long a job's workers may take to stop after a SIGTERM, seconds."""
    told = environment.get(STOP_WAIT)
    return max(0.0, float(told) - AFTERWARDS_S) if told else GRACE_S


def short_stop(environment: Mapping[str, str]) -> str | None:
    """Return the warning for a submitted job that Ray will not give the time to stop well; None: it has it."""
    if SUBMITTED not in environment or STOP_WAIT in environment:
        return None
    return (
        f"`ray job stop` gives this job {RAYS_STOP_WAIT_S:.0f} s, too few for a checkpoint: submit it with"
        " `--runtime-env cluster/runtime-env.yaml`, which gives it more"
    )


@contextmanager
def _heeding_sigterm() -> Iterator[threading.Event]:
    """Give an event that the first SIGTERM sets; the second one ends the process at once.

    Ray sets a handler of its own when it connects, so this one comes after that.
    """
    told = threading.Event()

    def heed(_number: int, _frame: Any) -> None:
        if told.is_set():
            sys.stdout.flush()
            os._exit(STOPPED)
        told.set()

    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.signal(signal.SIGTERM, heed)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


def run_to_end(
    recipe: Recipe,
    *,
    address: str | None = None,
    preflight: bool = True,
    verbose: bool = False,
    takeover: bool = False,
) -> dict[str, Any]:
    """Start or resume a run, train to its stop, draw its picture, and print a short summary.

    Args:
        recipe: of the run.
        address: of the cluster; `launch.connect` says more.
        preflight: check first what can be checked.
        verbose: show what Ray's processes print.
        takeover: take the run from a job that holds it.

    Returns:
        The summary, as in summary.json; `status` and `told_to_stop` alone if there was nothing left to do.

    Raises:
        UserError: what the user has to mend; LeaseError among them, if another job holds the run.
        SystemFault: if the run does not get on.
    """
    began = time.time()
    logs.begin(logs.Context(logs.style_of(recipe.telemetry.logs), recipe.run.name))
    recipe = settled(recipe, say)
    warning = short_stop(os.environ)
    if warning:
        say(warning)
    if preflight:
        before_connecting(recipe, say)
    with Lease.acquire(run_uri(recipe), say, takeover=takeover) as lease:
        book = Book(run_uri(recipe), lease.generation, began)
        book.write()  # so that who looks at the run does not take an earlier job's view for that of this one
        recipe, state = _opened(recipe, preflight=preflight)
        if state.reached:
            return _nothing_to_do(recipe, state, book)
        say(_opening(recipe, state))
        _fit_tokenizer(recipe, state)
        here = connect(recipe, address, verbose=verbose)
        with _heeding_sigterm() as stop:
            if preflight:
                after_connecting(recipe, say, fixed=here)
            starts = Starts(run_uri(recipe), lease.generation, describe(device=False))
            shift = Shift(book, lease, stop, stop_grace_s(os.environ), starts=starts)
            line = ProgressLine()
            # Around the closing, too: a service that does not answer delays neither summary nor picture.
            with Trackers(recipe, line.between) as trackers:
                try:
                    ending = _train(recipe, state, shift, line, trackers)
                except BaseException:
                    for told in book.lines():
                        say(told)
                    raise
                return _close(recipe, state, began, book, ending)


def _opened(recipe: Recipe, *, preflight: bool) -> tuple[Recipe, RunState]:
    """Index the run's videos, unless that is done, and look into its folder; the recipe knows its classes then."""
    recipe = ensure_labels(recipe, workers=os.cpu_count() or 2, say=say)
    index_uri = ensure_index(recipe, workers=os.cpu_count() or 2, say=say)
    check_rejected(recipe, Index(index_uri))
    if preflight and recipe.record.labelled:  # the classes are known now
        tell_init_from(recipe, say)
    return recipe, open_run(recipe, index_uri, say)


def _nothing_to_do(recipe: Recipe, state: RunState, book: Book) -> dict[str, Any]:
    """Say that the run has reached its stop, and take this job's record back."""
    what = "complete" if state.complete else f"at step {state.progress.step}, where run.stop_at_step ends it"
    say(f"the run {recipe.run.name} is {what}: {run_uri(recipe)}")
    book.withdraw()
    return {"status": "complete" if state.complete else "stopped", "told_to_stop": False}


def _fit_tokenizer(recipe: Recipe, state: RunState) -> None:
    """Fit the tokenizer of a run that wants one of its own, unless an earlier start has done so."""
    wanted = recipe.record.to_fit(recipe.method, run_uri(recipe))
    if wanted is not None:
        from system.train.own_tokenizer import ensure_tokenizer  # noqa: PLC0415  torch

        ensure_tokenizer(recipe, state.index.uri, wanted, say, resumed=state.progress.step > 0)


def _close(recipe: Recipe, before: RunState, began: float, book: Book, ending: Ending) -> dict[str, Any]:
    """Write down how the run stands, tell it, and return the summary."""
    folder, told_to_stop = run_uri(recipe), ending == "stopped"
    state = open_run(recipe, before.index.uri, say)
    outputs = written(state, folder)
    told: dict[str, Any] = {"whole": book.whole, "told_to_stop": told_to_stop}
    summary = write_summary(recipe, state, began, outputs, book.account, **told)
    if not told_to_stop:
        # After the summary: whatever picture and report meet, the run is done and says so.
        book.write()
        outputs |= shown(recipe, state)
        summary = write_summary(recipe, state, began, outputs, book.account, **told)
    for line in [*_closing(summary), *book.lines(), *told_plan(summary["plan"])]:
        say(line)
    return summary


def _opening(recipe: Recipe, state: RunState) -> str:
    begin = f"resuming at step {state.progress.step}" if state.progress.step else "starting"
    return (
        f"{begin}: {recipe.run.name}, {recipe.method.name} on {state.index.num_videos} videos,"
        f" {state.schedule.stop} steps of {recipe.train.global_batch} clips, {told_workers(recipe)} workers"
    )


def _train(recipe: Recipe, state: RunState, shift: Shift, line: ProgressLine, trackers: Trackers) -> Ending:
    shown = -1
    exporter = Exporter(run=recipe.run.name)
    # Between two steps, too, and before the first.
    watch = Watch(
        recipe, state, shift.book, exporter, line.between, lambda live: line.refresh(partial(live_view, live))
    )

    def show(values: dict[str, Any], _schedule: Schedule) -> None:
        nonlocal shown
        watch.saw_stages(values.pop("stages", ()))
        if values["step"] != shown:
            shown = values["step"]
            logs.at(step=shown + 1)
            watch.saw(values)
            trackers.saw(values)
            probe.saw(values)
            live = watch.live()
            fields: dict[str, Any] = {name: values.get(name) for name in PROGRESS}
            line.show(live_line(live), view=partial(live_view, live), **fields)

    def probed(rows: list[dict[str, Any]], new: dict[str, Any] | None) -> None:
        watch.probed(rows)
        if new is not None:
            trackers.add(new)

    try:
        with watch, OnlineProbe(recipe, line.between, probed, shift.hold) as probe:
            shift.make_way = probe.make_way
            ending = train(recipe, state, say=line.between, show=show, shift=shift)
            if ending == "done":
                probe.finish(shift.stop)
    finally:
        line.end()
    trackers.ended("stopped" if ending == "stopped" else "complete")
    return ending


def _closing(summary: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{summary['status']}: step {summary['step']} of {summary['steps']}, {summary['clips']} clips of"
        f" {summary['videos']} videos in {duration(summary['job_s'])}",
    ]
    if summary["loss_first"] is not None and summary["loss_last"] is not None:
        lines.append(
            f"loss {summary['loss_first']:.4f} -> {summary['loss_last']:.4f}   {summary['clips_per_s']:.1f} clips/s"
            f"   data wait {summary['data_wait']:.1%}"
        )
    if summary["cost"] is not None:
        cost = summary["cost"]
        lines.append(
            f"cost at {cost['price_per_hour']:g} an hour: {cost['job']:.2f} of this job, {cost['run']:.2f} in all"
        )
    if summary["told_to_stop"]:
        lines.append("stopped by SIGTERM; the same command goes on from here")
    if summary["slots_fallback"]:
        lines.append(
            f"the streams of {summary['slots_fallback']} slots have too few motion vectors: their motion is from"
            f" {summary['motion_fallback']}"
        )
    bad = summary["num_quarantined"] + summary["num_rejected_at_indexing"]
    if bad:
        lines.append(f"{bad} videos could not be read:")
        reasons = [(each["name"], each["reason"]) for each in summary["rejected_at_indexing"]]
        reasons += list(summary["quarantined"].items())
        lines += [f"  {name}: {reason}" for name, reason in reasons[:10]]
    lines += [f"  {name:11s} {place}" for name, place in summary["outputs"].items()]
    return lines
