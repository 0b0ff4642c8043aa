"""The one declaration of what a run exports: name, kind, unit, help and labels of every series.

The exporter refuses what is not declared here. Dashboard, alert rules and the table of docs/monitoring.md are made of
it, and a test holds them to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# Why a video gave no clip, as `errors.DecodeError` counts it: exported from the start, so that a first error is a rise.
CODES = ("open", "decode", "short", "corrupt", "deadline", "crash", "memory", "storage")
# Stages whose actors tell how busy they are.
STAGES = ("read", "decode", "mask")

# Who exports a series: the driver, each rank, or each actor of a stage.
Teller = Literal["driver", "rank", "actor"]


@dataclass(frozen=True, slots=True)
class Series:
    """One series.

    Attributes:
        name: ours; Ray puts `ray_` before it, and `_total` behind a counter's.
        unit: of its values; a ratio is in [0, 1].
        help: what it says, in one sentence.
        labels: besides Ray's own (SessionName, NodeAddress, WorkerId, Component, Version).
        kind: a gauge has a value now; a counter rises from its process's start.
        by: who exports it.
    """

    name: str
    unit: str
    help: str
    labels: tuple[str, ...] = ("run",)
    kind: Literal["gauge", "counter"] = "gauge"
    by: Teller = "driver"

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        return f"ray_{self.name}" + ("_total" if self.kind == "counter" else "")


_DECLARED = (
    Series("tubelet_step", "steps", "Steps that are done."),
    Series("tubelet_steps_planned", "steps", "Steps of the whole run."),
    Series("tubelet_ranks", "ranks", "Ranks that train now."),
    Series("tubelet_attempts", "attempts", "Starts of the worker group in this job."),
    Series("tubelet_silence_seconds", "s", "Since the trainers' last step, or since the job began."),
    Series("tubelet_clips_per_second", "clips/s", "Throughput of the newest step, over all ranks."),
    Series("tubelet_step_seconds", "s", "Length of the newest step without its checkpoint."),
    Series("tubelet_data_wait_ratio", "ratio", "Share of the newest step that rank 0 waited for data."),
    Series("tubelet_loss", "", "Mean loss of the newest step."),
    Series("tubelet_grad_norm", "", "Norm of the newest step's gradient."),
    Series("tubelet_learning_rate", "", "Learning rate of the newest step."),
    Series("tubelet_mfu_ratio", "ratio", "Model FLOPs over the devices' peak rate, where that is known."),
    Series("tubelet_trainer_memory_bytes", "bytes", "Resident memory of rank 0."),
    Series("tubelet_videos", "videos", "Videos of the index."),
    Series(
        "tubelet_quarantined_videos", "videos", "Videos in quarantine: they could not be read, and are passed over."
    ),
    Series("tubelet_decode_errors", "videos", "Videos in quarantine by what was wrong with them.", ("run", "code")),
    Series("tubelet_bad_ratio", "ratio", "Share of the last few thousand slots whose own video could not be read."),
    Series("tubelet_bad_ratio_limit", "ratio", "data.max_bad_ratio: above it the run stops."),
    Series("tubelet_slots", "slots", "Slots of the plan that are done."),
    Series("tubelet_slots_substituted", "slots", "Of these, the ones in which a spare video stood."),
    Series("tubelet_slots_skipped", "slots", "Of these, the ones in which no video could stand."),
    Series(
        "tubelet_slots_fallback", "slots", "Of these, the ones whose motion is from the fallback (motion.fallback)."
    ),
    Series("tubelet_checkpoint_step", "steps", "Steps that the newest checkpoint holds; 0: none yet."),
    Series("tubelet_checkpoint_age_seconds", "s", "Since the newest checkpoint was committed, or since the start."),
    Series("tubelet_checkpoint_every_steps", "steps", "checkpoint.every_steps."),
    Series("tubelet_job_seconds", "s", "Where this job's time went; the parts add up to all of it.", ("run", "part")),
    Series("tubelet_goodput_ratio", "ratio", "Share of this job's time that computed steps for the first time."),
    Series("tubelet_run_goodput_ratio", "ratio", "The same over all jobs of the run."),
    Series(
        "tubelet_cost", "price", "telemetry.price_per_hour times the hours of all jobs of the run, where it is set."
    ),
    Series("tubelet_price_per_hour", "price/h", "telemetry.price_per_hour, where it is set."),
    Series(
        "tubelet_probe_top1_ratio",
        "ratio",
        "Share of the test videos that the newest probe puts right, where the recipe has one.",
        ("run", "probe"),
    ),
    Series("tubelet_probe_step", "steps", "Steps that the newest probed checkpoint holds."),
    Series("tubelet_probes_failed", "probes", "Probes of this run that failed."),
    Series(
        "tubelet_rank_data_wait_seconds",
        "s",
        "What each rank waited for data; its rate is the share of time that it starved.",
        ("run", "rank"),
        "counter",
        "rank",
    ),
    Series("tubelet_rank_steps", "steps", "Steps that each rank has done.", ("run", "rank"), "counter", "rank"),
    Series(
        "tubelet_stage_busy_seconds",
        "s",
        "What the actors of a stage worked; its rate is how many of them are busy.",
        ("run", "stage"),
        "counter",
        "actor",
    ),
    Series("tubelet_stage_blocks", "blocks", "Blocks that a stage has given.", ("run", "stage"), "counter", "actor"),
)
SERIES = {series.name: series for series in _DECLARED}

# What Ray itself exports and the dashboard shows; a test looks for each of them in the installed version.
RAYS = (
    "ray_data_operator_queued_blocks",
    "ray_data_num_tasks_running",
    "ray_data_num_alive_actors",
    "ray_data_current_bytes",
    "ray_node_cpu_utilization",
    "ray_node_gpus_utilization",
    "ray_node_gram_used",
    "ray_node_mem_used",
    "ray_node_mem_total",
    "ray_object_store_used_memory",
)

# Words of PromQL that a name may be taken for.
_WORDS = {"by", "without", "on", "ignoring", "and", "or", "unless", "group_left", "group_right", "offset", "bool"}


def names_in(expression: str) -> set[str]:
    """Return the series that a PromQL expression reads: its names that are no functions, labels or words."""
    bare = re.sub(r'"[^"]*"', "", expression)  # first: a text may hold brackets
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    found = re.findall(r"(?<![\w$])([a-zA-Z_:][\w:]*)(?!\w)(?!\s*\()", bare)
    return {name for name in found if name not in _WORDS}


def unknown_names(expressions: Iterable[str]) -> set[str]:
    """Return the series that expressions read and nobody exports."""
    known = {series.exported for series in SERIES.values()} | set(RAYS)
    return {name for expression in expressions for name in names_in(expression)} - known
