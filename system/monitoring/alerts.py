"""The alert rules: when a person should look. Written to cluster/monitoring, for Prometheus and for its operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from system.monitoring.series import SERIES

# The share of the time that a rank may wait for data, as a mean over ten minutes.
STARVED_RATIO = 0.2
# No step for so long, and for so many of the usual steps; seconds.
STALL_S, STALL_STEPS = 300, 10
# So many videos, and such a share of all, in quarantine within an hour.
QUARANTINE_VIDEOS, QUARANTINE_RATIO = 10, 0.001
# Of data.max_bad_ratio, above which the run stops by itself.
NEAR_LIMIT = 0.5
# A checkpoint may take so many intervals to follow, and seconds more, for a commit and a resumption.
CHECKPOINT_INTERVALS, CHECKPOINT_S = 2, 900
# Starts of the workers within an hour.
RESTARTS = 3
# Share of a job's time that computes, after an hour.
GOODPUT_RATIO = 0.5


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule.

    Attributes:
        name: of the alert.
        expr: in PromQL: what is true while it fires.
        wait: for how long it has to be true.
        severity: `page`: the run stands or will; `ticket`: it is slower or dearer than it need be.
        summary: what happens, in one sentence; of Prometheus' templates.
        action: what to do about it.
    """

    name: str
    expr: str
    wait: str
    severity: Literal["page", "ticket"]
    summary: str
    action: str


def _series(name: str) -> str:
    return SERIES[name].exported


ALERTS = (
    Alert(
        "TubeletStarved",
        f"max by (run) (rate({_series('tubelet_rank_data_wait_seconds')}[10m])) > {STARVED_RATIO}",
        "5m",
        "ticket",
        "A rank of {{ $labels.run }} waits for data {{ $value | humanizePercentage }} of the time.",
        "The stage whose actors are all busy is short: more resources.decode_actors (or read_actors, mask.actors); if"
        " the queues before it are empty as well, the storage is slow.",
    ),
    Alert(
        "TubeletStalled",
        f"{_series('tubelet_silence_seconds')} > {STALL_S} and {_series('tubelet_silence_seconds')}"
        f" > {STALL_STEPS} * ({_series('tubelet_step_seconds')} or 0 * {_series('tubelet_silence_seconds')})",
        "1m",
        "page",
        "{{ $labels.run }} has not taken a step for {{ $value | humanizeDuration }}.",
        "The driver's log says who waits for whom (`slow:` lines); hung ranks end by resources.worker_timeout_s. Before"
        " the first step: machines that do not come.",
    ),
    Alert(
        "TubeletQuarantineGrows",
        f"delta({_series('tubelet_quarantined_videos')}[1h]) > {QUARANTINE_VIDEOS} and"
        f" delta({_series('tubelet_quarantined_videos')}[1h]) > {QUARANTINE_RATIO} * {_series('tubelet_videos')}",
        "0m",
        "ticket",
        "{{ $value | humanize }} videos of {{ $labels.run }} could not be read within an hour.",
        "quarantine.jsonl in the run's folder names them; one code for all (storage, deadline) points to the machines,"
        " not to the videos.",
    ),
    Alert(
        "TubeletNearBadLimit",
        f"{_series('tubelet_bad_ratio')} > {NEAR_LIMIT} * {_series('tubelet_bad_ratio_limit')}",
        "5m",
        "page",
        "{{ $value | humanizePercentage }} of the newest videos of {{ $labels.run }} cannot be read; it stops at"
        " data.max_bad_ratio.",
        "Look into quarantine.jsonl before it stops; it is resumable then.",
    ),
    Alert(
        "TubeletCheckpointOld",
        f"{_series('tubelet_checkpoint_age_seconds')} > {CHECKPOINT_S} + {CHECKPOINT_INTERVALS} *"
        f" {_series('tubelet_checkpoint_every_steps')} *"
        f" avg_over_time({_series('tubelet_step_seconds')}[30m])",
        "5m",
        "page",
        "The newest checkpoint of {{ $labels.run }} is {{ $value | humanizeDuration }} old, more than twice what"
        " checkpoint.every_steps take.",
        "Storage that does not take writes, or restarts before the next checkpoint: the driver's log says which.",
    ),
    Alert(
        "TubeletRestarts",
        f"delta({_series('tubelet_attempts')}[1h]) > {RESTARTS}",
        "0m",
        "page",
        "The workers of {{ $labels.run }} were started {{ $value | humanize }} times within an hour.",
        "The driver's log names the reason of each; resources.max_failures ends it at last.",
    ),
    Alert(
        "TubeletGoodputLow",
        f"{_series('tubelet_goodput_ratio')} < {GOODPUT_RATIO} and on (run)"
        f" sum by (run) ({_series('tubelet_job_seconds')}) > 3600",
        "30m",
        "ticket",
        "{{ $labels.run }} computes {{ $value | humanizePercentage }} of its time.",
        "The panel `Where the time goes` says what takes the rest.",
    ),
)


def rules() -> dict[str, Any]:
    """Return the rules file of Prometheus."""
    return {
        "groups": [
            {
                "name": "tubelet",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.expr,
                        "for": alert.wait,
                        "labels": {"severity": alert.severity},
                        "annotations": {"summary": alert.summary, "action": alert.action},
                    }
                    for alert in ALERTS
                ],
            }
        ]
    }


def prometheus_rule() -> dict[str, Any]:
    """Return the same rules as a resource of Prometheus' operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "tubelet", "namespace": "tubelet"},
        "spec": rules(),
    }
