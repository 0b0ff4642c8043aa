"""What a run's folder says, gathered for its report: whatever is missing or damaged is told, and nothing of it fails.

Only a folder that is no run's is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from system import storage
from system.data.dataset import find_index
from system.data.index import Index, read_rejected
from system.errors import TubeletError
from system.recipe import Recipe
from system.recipe_tree import parse_yaml
from system.report.markup import counted
from system.report.metric_lines import Metrics, read_lines
from system.train.afar import renews
from system.train.audit import Audit, audit
from system.train.claims import HELD
from system.train.goodput import Account, Record, read_records, summed
from system.train.kept_recipe import recipe_there, run_recipe
from system.train.lease import TIMES, Times, newest_claim
from system.train.live import Live
from system.train.past import Past, open_past
from system.train.probed import good, read_probes
from system.train.progress import Progress, progress_from
from system.train.skips import read_skips
from system.train.starts import JobStarts, Start, read_starts

T = TypeVar("T")
# What a file raises that is missing, damaged, or of another version.
UNREADABLE = (TubeletError, OSError, ValueError, KeyError, TypeError, AttributeError)
# Slots of the plan that the audit of a report reads and compares at most, the newest: some seconds on one core.
AUDITED_SLOTS = 1_000_000


@dataclass(frozen=True, slots=True)
class BadVideo:
    """A video that could not be read: its name, a code, and the reason."""

    name: str
    code: str
    reason: str


@dataclass
class RunFiles:
    """A run's folder.

    Attributes:
        uri: of it.
        name: of the run.
        recipe: of the run, its place made that of the folder; None if this version cannot read it.
        values: the recipe as it is written.
        metrics: logged steps.
        summary: summary.json; {} if there is none.
        account: where the time of all its jobs went; None: no record.
        live: how it went when its newest job last wrote that down; None: no job has.
        jobs: their starts.
        probes: what probes of its checkpoints found, by step.
        skips: steps that are left out, and why.
        progress: of the newest whole checkpoint; None: there is none.
        state: plain values of that checkpoint.
        past: the newest part of its history.
        audit: of that; None if it could not be made.
        index: of its videos; None if it cannot be reached.
        bad_videos: those that could not be read.
        running: a job holds it now.
        missing: what could not be read, and why.
    """

    uri: str
    name: str
    recipe: Recipe | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=lambda: read_lines([]))
    summary: Mapping[str, Any] = field(default_factory=dict)
    account: Account | None = None
    live: Live | None = None
    jobs: tuple[JobStarts, ...] = ()
    probes: tuple[Mapping[str, Any], ...] = ()
    skips: Mapping[int, str] = field(default_factory=dict)
    progress: Progress | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    past: Past | None = None
    audit: Audit | None = None
    index: Index | None = None
    bad_videos: tuple[BadVideo, ...] = ()
    running: bool = False
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def starts(self) -> list[Start]:
        """All starts of worker groups, the oldest first."""
        return [start for job in self.jobs for start in job.starts]

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None if its number of videos is not known."""
        if self.recipe is None:
            return None
        if self.recipe.train.steps is not None:
            return self.recipe.train.steps
        return self.recipe.steps(self.index.num_videos) if self.index is not None else None

    @property
    def done(self) -> int:
        """Steps that are done, as far as it is known here."""
        logged = int(self.metrics["step"][-1]) + 1 if len(self.metrics) else 0
        return max(logged, self.progress.step if self.progress else 0)

    @property
    def complete(self) -> bool:
        """Whether a checkpoint holds all steps: logged ones may be lost. By the summary where no ledger can be read."""
        if self.steps is None:
            return False
        if self.progress is not None:
            return self.progress.step >= self.steps
        step = self.summary.get("step")
        return self.summary.get("status") == "complete" and isinstance(step, int) and step >= self.steps

    def _try(self, what: str, read: Callable[[], T], default: T) -> T:
        """Read a part; where that fails, say so and go on without."""
        try:
            return read()
        except storage.MissingError as error:
            self.missing[what] = f"it is not there: {error}"
        except UNREADABLE as error:
            self.missing[what] = f"{type(error).__name__}: {error}"
        return default


def read_run(uri: str, *, with_audit: bool = True, held: bool = False, times: Times = TIMES) -> RunFiles:
    """Read a run's folder.

    Args:
        uri: of it.
        with_audit: read the ledger and compare it with the plan.
        held: the job that asks holds the run, and is done with it.
        times: of the run's lease: of a job on another machine one has to wait whether it renews.

    Raises:
        WeightsError: if it is no run's folder.
        StorageFault: if storage does not answer.
    """
    run = RunFiles(uri, uri.rstrip("/").rpartition("/")[2])
    if not storage.exists(storage.join(uri, "recipe.yaml")):
        run_recipe(uri)  # says what is wrong
    run.values = run._try("recipe.yaml", lambda: parse_yaml(_text(uri, "recipe.yaml"), "recipe.yaml"), {})
    run.recipe = run._try("the recipe", lambda: recipe_there(uri), None)
    run.metrics = run._try("metrics.jsonl", lambda: read_lines(_lines(uri, "metrics.jsonl")), run.metrics)
    if run.metrics.unreadable:
        run.missing["metrics.jsonl"] = f"it has {counted(run.metrics.unreadable, 'line')} that cannot be read"
    run.summary = run._try("summary.json", lambda: _object(_text(uri, "summary.json")), {})
    none: list[Record] = []
    records = run._try("goodput/", lambda: list(read_records(uri).values()), none)
    if records:
        run.account, run.live = summed([each.account for each in records]), records[-1].live
    run.jobs = run._try("starts/", lambda: tuple(read_starts(uri)), ())
    run.probes = run._try("probe.jsonl", lambda: tuple(good(read_probes(uri))), ())
    run.skips = run._try("skips.json", lambda: read_skips(uri), {})
    run.running = run._try("lease/", lambda: not held and _running(uri, times), False)
    run.past = run._try("the ledger", lambda: open_past(uri, newest=AUDITED_SLOTS), None)
    if run.past is not None:
        past = run.past
        run.state, run.index = past.checkpoint.state, past.maker.index
        run.progress = run._try("the checkpoint", lambda: progress_from(run.state["progress"]), None)
        run.audit = run._try("the audit", lambda: _audit(past), None) if with_audit else None
    elif run.recipe is not None:
        recipe = run.recipe
        run.index = run._try("the index", lambda: _index(recipe), None)
    run.bad_videos = run._try("quarantine.jsonl", lambda: _bad_videos(run), ())
    return run


def _text(uri: str, name: str) -> str:
    return storage.read(storage.join(uri, name)).decode(errors="replace")


def _lines(uri: str, name: str) -> list[bytes]:
    return storage.read(storage.join(uri, name)).splitlines()


def _object(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    return values


def _running(uri: str, times: Times) -> bool:
    claim = newest_claim(uri)
    return claim is not None and claim.state == HELD and renews(uri, claim, time.time(), times)


def _audit(past: Past) -> Audit:
    steps = past.checkpoint.step
    first = max(0, steps - max(1, AUDITED_SLOTS // past.recipe.slots_per_step))
    return audit(past, first)


def _index(recipe: Recipe) -> Index | None:
    uri = find_index(recipe)
    return Index(uri) if uri is not None else None


def _bad_videos(run: RunFiles) -> tuple[BadVideo, ...]:
    """Name the videos in quarantine, and the files that the index leaves out."""
    found = []
    with suppress(storage.MissingError):
        for line in _lines(run.uri, "quarantine.jsonl"):
            values = _object(line.decode(errors="replace"))
            found.append(BadVideo(str(values["name"]), str(values["code"]), str(values["reason"])))
    if run.index is not None:
        found += [BadVideo(each.name, each.code, each.reason) for each in read_rejected(run.index.uri)]
    return tuple(found)
