"""What the Grafana dashboard shows: rows of panels, each with its expressions. dashboard.py makes JSON of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from system.monitoring.series import SERIES

# Of our series, and of Ray's about the run's stream, which is named after it: NAME_ID_EXECUTION. Before reading there
# are but numbers of blocks.
RUN = '{run=~"$run"}'
STREAM = '{dataset=~"(${run:regex})_[0-9A-Za-z]+_[0-9]+", operator=~".*(_Read|_Decode|_Mask).*|split.*"}'
QUEUES = STREAM.replace("_Read|", "")


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        unit: as Grafana calls it.
        targets: expression and legend of each line.
        kind: `stat`: the newest value; `timeseries`: lines.
        width: of 24 columns.
        stacked: lines lie on each other.
        limits: value from which on it is coloured -> colour.
        about: a sentence for who points at it.
    """

    title: str
    unit: str
    targets: tuple[tuple[str, str], ...]
    kind: Literal["stat", "timeseries"] = "timeseries"
    width: int = 8
    stacked: bool = False
    limits: dict[float, str] = field(default_factory=dict)
    about: str = ""

    @property
    def height(self) -> int:
        """Rows of the grid that it takes."""
        return 4 if self.kind == "stat" else 8


def of(name: str) -> str:
    """Return the expression of one of our series, of the chosen runs."""
    return SERIES[name].exported + RUN


def rate(name: str) -> str:
    """Return the rate of one of our counters, of the chosen runs."""
    return f"rate({of(name)}[$__rate_interval])"


def _stat(title: str, unit: str, expr: str, *, limits: dict[float, str] | None = None) -> Panel:
    return Panel(title, unit, ((expr, "{{run}}"),), "stat", 3, limits=limits or {})


def _mine(title: str, unit: str, name: str, legend: str = "{{run}}", about: str = "") -> Panel:
    return Panel(title, unit, ((of(name), legend),), about=about or SERIES[name].help)


_LEFT_S = (
    f"({of('tubelet_steps_planned')} - {of('tubelet_step')}) * avg_over_time({of('tubelet_step_seconds')}[15m])"
    f" / {of('tubelet_goodput_ratio')}"
)
_PER_STEP = f"{of('tubelet_cost')} / {of('tubelet_step')}"

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Now",
        (
            _stat("Done", "percentunit", f"{of('tubelet_step')} / {of('tubelet_steps_planned')}"),
            _stat("Left, at this goodput", "s", _LEFT_S),
            _stat("Clips a second", "short", of("tubelet_clips_per_second")),
            _stat(
                "Longest data wait",
                "percentunit",
                f"max by (run) ({rate('tubelet_rank_data_wait_seconds')})",
                limits={0.05: "yellow", 0.2: "red"},
            ),
            _stat("Last step was", "s", of("tubelet_silence_seconds"), limits={60: "yellow", 300: "red"}),
            _stat("Checkpoint was", "s", of("tubelet_checkpoint_age_seconds")),
            _stat("In quarantine", "short", of("tubelet_quarantined_videos")),
            _stat("Goodput", "percentunit", of("tubelet_run_goodput_ratio")),
        ),
    ),
    (
        "Training",
        (
            _mine("Loss", "none", "tubelet_loss"),
            _mine("Gradient norm", "none", "tubelet_grad_norm"),
            _mine("Learning rate", "sci", "tubelet_learning_rate"),
            _mine("Throughput", "clips/s", "tubelet_clips_per_second"),
            _mine("Seconds of a step", "s", "tubelet_step_seconds"),
            _mine("Use of the devices' peak rate", "percentunit", "tubelet_mfu_ratio"),
            _mine("Probes of frozen features", "percentunit", "tubelet_probe_top1_ratio", "{{run}} {{probe}}"),
            Panel(
                "Probed",
                "short",
                (
                    (of("tubelet_probe_step"), "{{run}}: the newest step"),
                    (of("tubelet_probes_failed"), "{{run}}: failed"),
                ),
            ),
        ),
    ),
    (
        "Data",
        (
            Panel(
                "Waiting for data",
                "percentunit",
                (
                    (f"max by (run) ({rate('tubelet_rank_data_wait_seconds')})", "{{run}}: the longest"),
                    (f"avg by (run) ({rate('tubelet_rank_data_wait_seconds')})", "{{run}}: mean of the ranks"),
                ),
                about="Share of the time that ranks stood still for want of a block.",
            ),
            Panel(
                "Busy actors",
                "short",
                ((f"sum by (run, stage) ({rate('tubelet_stage_busy_seconds')})", "{{run}} {{stage}}"),),
                about="As many as the stage has: it is what the others wait for.",
            ),
            Panel(
                "Blocks a second",
                "short",
                ((f"sum by (run, stage) ({rate('tubelet_stage_blocks')})", "{{run}} {{stage}}"),),
            ),
            Panel(
                "Queue before each stage",
                "short",
                ((f"sum by (operator) (ray_data_operator_queued_blocks{QUEUES})", "{{operator}}"),),
                about="Blocks that wait for it; `split`: for the trainers. The stage behind a long queue is slow.",
            ),
            Panel(
                "Actors and tasks of each stage",
                "short",
                (
                    (f"sum by (operator) (ray_data_num_alive_actors{STREAM}) > 0", "{{operator}}: actors"),
                    (f"sum by (operator) (ray_data_num_tasks_running{STREAM})", "{{operator}}: tasks"),
                ),
            ),
            Panel(
                "What each stage holds in the object store",
                "bytes",
                ((f"sum by (operator) (ray_data_current_bytes{STREAM})", "{{operator}}"),),
                stacked=True,
            ),
        ),
    ),
    (
        "Videos",
        (
            Panel(
                "Videos that could not be read",
                "short",
                ((of("tubelet_decode_errors"), "{{run}} {{code}}"),),
                stacked=True,
                about="In quarantine, by what was wrong with them.",
            ),
            Panel(
                "Share of bad videos",
                "percentunit",
                ((of("tubelet_bad_ratio"), "{{run}}"), (of("tubelet_bad_ratio_limit"), "{{run}}: it stops at")),
            ),
            Panel(
                "Slots without their own video",
                "short",
                (
                    (of("tubelet_slots_substituted"), "{{run}}: a spare"),
                    (of("tubelet_slots_skipped"), "{{run}}: nothing"),
                    (of("tubelet_slots_fallback"), "{{run}}: motion from the fallback"),
                ),
            ),
        ),
    ),
    (
        "Time and money",
        (
            Panel(
                "Where the time goes",
                "s",
                ((of("tubelet_job_seconds"), "{{run}} {{part}}"),),
                stacked=True,
                about=SERIES["tubelet_job_seconds"].help,
            ),
            Panel(
                "Age of the newest checkpoint",
                "s",
                (
                    (of("tubelet_checkpoint_age_seconds"), "{{run}}"),
                    (
                        f"{of('tubelet_checkpoint_every_steps')} * avg_over_time({of('tubelet_step_seconds')}[15m])",
                        "{{run}}: checkpoint.every_steps",
                    ),
                ),
            ),
            Panel(
                "Ranks and starts",
                "short",
                ((of("tubelet_ranks"), "{{run}}: ranks"), (of("tubelet_attempts"), "{{run}}: starts in this job")),
            ),
            _mine("Cost so far", "none", "tubelet_cost"),
            Panel(
                "Cost of a thousand steps",
                "none",
                ((f"1000 * {_PER_STEP}", "{{run}}"),),
            ),
            Panel(
                "Cost of the whole run",
                "none",
                ((f"{_PER_STEP} * {of('tubelet_steps_planned')}", "{{run}}"),),
                about="If it goes on as it did until now.",
            ),
        ),
    ),
    (
        "Machines",
        (
            Panel("CPUs", "percent", (("ray_node_cpu_utilization", "{{ip}}"),)),
            Panel("GPUs", "percent", (("ray_node_gpus_utilization", "{{ip}} {{GpuIndex}}"),)),
            Panel(
                "Memory",
                "percentunit",
                (("ray_node_mem_used / ray_node_mem_total", "{{ip}}"),),
            ),
            Panel("Memory of the GPUs", "decmbytes", (("ray_node_gram_used", "{{ip}} {{GpuIndex}}"),)),
            Panel("Object store", "bytes", (("ray_object_store_used_memory", "{{NodeAddress}}"),)),
            _mine("Memory of rank 0", "bytes", "tubelet_trainer_memory_bytes"),
        ),
    ),
)


def expressions() -> list[str]:
    """Return every expression of the dashboard."""
    return [expr for _, panels in ROWS for panel in panels for expr, _ in panel.targets]
