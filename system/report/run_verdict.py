"""The verdict about a run, from what its folder says."""

from __future__ import annotations

from collections.abc import Sequence

from system.report.charts import why_ended
from system.report.reference import Reference
from system.report.run_files import RunFiles
from system.report.verdict import (
    Check,
    Status,
    Verdict,
    Videos,
    check_data_wait,
    check_goodput,
    check_gradient,
    check_loss,
    check_videos,
)
from system.train.starts import Start

# Share of the videos' slots without their own video above which a run stops, where its recipe cannot be read.
MAX_BAD_RATIO = 0.1
# What is good progress.
PROGRESS = "it runs, or it has ended as it was told to"
# How a start ends that was asked to, and whose job is not to go on.
TOLD = "the job is told to stop"


def judge(run: RunFiles, reference: Reference | str) -> Verdict:
    """Judge a run by what its folder says."""
    left_out = set(run.skips)
    if run.audit is not None:
        left_out |= set(run.audit.not_trained)
    skipped = len(left_out)
    if run.past is not None:  # of the whole run, of which the audit reads the newest part
        skipped = max(skipped, run.past.checkpoint.step - run.past.checkpoint.optimizer_step)
    first_steps = [start.from_step for start in run.starts]
    return Verdict(
        (
            _check_progress(run),
            check_loss(run.metrics, reference),
            check_gradient(run.metrics, skipped, run.done),
            check_data_wait(run.metrics, first_steps),
            check_videos(_videos(run)),
            _check_audit(run),
            check_goodput(run.account.parts if run.account is not None else {}),
        )
    )


def _check_progress(run: RunFiles) -> Check:
    """Say how far a run is: complete, on its way, stopped, or ended by an error."""
    name, rule = "Progress", PROGRESS
    told = f"{run.done:,} of {run.steps:,} steps" if run.steps else f"{run.done:,} steps"
    if run.complete:
        return Check(name, "good", f"complete: {told}", rule)
    if run.running and run.live is not None and run.live.silent:
        stands = f"running, but no step for {run.live.silent_s:,.0f} s: {told}"
        return Check(name, "look", stands, rule, "`python -m jobs.status --run ...` shows what it does now")
    if run.running:
        return Check(name, "good", f"running: {told}", rule)
    return _ended(run.starts, told)


def _ended(starts: Sequence[Start], told: str) -> Check:
    """Say how a run ended that is not complete."""
    name, rule = "Progress", PROGRESS
    last = starts[-1] if starts else None
    if last is None:
        return Check(name, "open", f"{told}; why it is not complete is not recorded", rule)
    why = why_ended(last)
    if last.ended_s is not None and (not last.why or last.why == TOLD):
        return Check(name, "good", f"stopped, resumable: {told}", rule)
    return Check(name, "bad", f"ended at {told}: {why}", rule, "mend it, then submit the same command to go on")


def _check_audit(run: RunFiles) -> Check:
    name, rule = "Ledger", "each slot of the plan trained once, with its own video or the spare that the plan names"
    if run.audit is None:
        why = run.missing.get("the audit") or run.missing.get("the ledger") or "it was not read"
        return Check(name, "open", f"not audited: {why}", rule)
    status: Status = "good" if run.audit.clean else "bad"
    advice = "`python -m jobs.audit --run ...` names every finding"
    return Check(name, status, run.audit.verdict.removeprefix("audit: "), rule, advice)


def _videos(run: RunFiles) -> Videos:
    limit = run.recipe.data.max_bad_ratio if run.recipe is not None else MAX_BAD_RATIO
    progress, known = run.progress, int(run.summary.get("videos", 0))
    if run.index is not None:
        known = run.index.num_videos + run.index.num_rejected
    if progress is None:
        return Videos(known, len(run.bad_videos), 0, 0, limit)
    return Videos(known, len(run.bad_videos), progress.slots, progress.substituted + progress.skipped, limit)
