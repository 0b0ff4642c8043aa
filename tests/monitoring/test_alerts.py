"""The alert rules, judged by Prometheus' own promtool where it is installed (Debian: the package `prometheus`)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from system.monitoring.alerts import ALERTS, prometheus_rule, rules
from system.monitoring.panels import expressions
from tests.conftest import REPOSITORY

PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: PROMTOOL, or on the PATH")
WORKER = 'run="a", WorkerId="w"'

# Alert -> series that make it fire, and those that do not: name -> values a minute, as promtool writes them.
FIRES: dict[str, list[dict[str, str]]] = {
    "TubeletStarved": [{f'ray_tubelet_rank_data_wait_seconds_total{{{WORKER}, rank="3"}}': "0+20x120"}],
    "TubeletStalled": [
        {f"ray_tubelet_silence_seconds{{{WORKER}}}": "0+60x120", f"ray_tubelet_step_seconds{{{WORKER}}}": "2x120"},
        {f"ray_tubelet_silence_seconds{{{WORKER}}}": "0+60x120"},  # before the first step
    ],
    "TubeletQuarantineGrows": [
        {f"ray_tubelet_quarantined_videos{{{WORKER}}}": "0+1x120", f"ray_tubelet_videos{{{WORKER}}}": "1000x120"}
    ],
    "TubeletNearBadLimit": [
        {f"ray_tubelet_bad_ratio{{{WORKER}}}": "0.06x120", f"ray_tubelet_bad_ratio_limit{{{WORKER}}}": "0.1x120"}
    ],
    "TubeletCheckpointOld": [
        {
            f"ray_tubelet_checkpoint_age_seconds{{{WORKER}}}": "0+60x120",
            f"ray_tubelet_checkpoint_every_steps{{{WORKER}}}": "500x120",
            f"ray_tubelet_step_seconds{{{WORKER}}}": "2x120",
        }
    ],
    "TubeletRestarts": [{f"ray_tubelet_attempts{{{WORKER}}}": "1+0.1x120"}],
    "TubeletGoodputLow": [
        {
            f"ray_tubelet_goodput_ratio{{{WORKER}}}": "0.3x120",
            f'ray_tubelet_job_seconds{{{WORKER}, part="compute"}}': "0+18x120",
            f'ray_tubelet_job_seconds{{{WORKER}, part="restart"}}': "0+42x120",
        }
    ],
}
QUIET: dict[str, list[dict[str, str]]] = {
    "TubeletStarved": [{f'ray_tubelet_rank_data_wait_seconds_total{{{WORKER}, rank="3"}}': "0+5x120"}],
    "TubeletStalled": [
        # Steps of a minute are slow, not stalled.
        {f"ray_tubelet_silence_seconds{{{WORKER}}}": "0+5x120", f"ray_tubelet_step_seconds{{{WORKER}}}": "90x120"}
    ],
    "TubeletQuarantineGrows": [
        # As many, and a small share of the videos; and many that were there before.
        {f"ray_tubelet_quarantined_videos{{{WORKER}}}": "0+1x120", f"ray_tubelet_videos{{{WORKER}}}": "1000000x120"},
        {f"ray_tubelet_quarantined_videos{{{WORKER}}}": "500x120", f"ray_tubelet_videos{{{WORKER}}}": "1000x120"},
    ],
    "TubeletNearBadLimit": [
        {f"ray_tubelet_bad_ratio{{{WORKER}}}": "0.01x120", f"ray_tubelet_bad_ratio_limit{{{WORKER}}}": "0.1x120"}
    ],
    "TubeletCheckpointOld": [
        {
            f"ray_tubelet_checkpoint_age_seconds{{{WORKER}}}": "1000x120",
            f"ray_tubelet_checkpoint_every_steps{{{WORKER}}}": "500x120",
            f"ray_tubelet_step_seconds{{{WORKER}}}": "2x120",
        }
    ],
    "TubeletRestarts": [{f"ray_tubelet_attempts{{{WORKER}}}": "4x120"}],
    "TubeletGoodputLow": [
        {
            f"ray_tubelet_goodput_ratio{{{WORKER}}}": "0.3x40",
            f'ray_tubelet_job_seconds{{{WORKER}, part="restart"}}': "0+60x40",  # not an hour yet
        }
    ],
}


def promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert set(FIRES) == set(QUIET) == {alert.name for alert in ALERTS}


def test_the_operator_gets_the_same_rules() -> None:
    assert prometheus_rule()["spec"] == rules()


@needs_promtool
def test_prometheus_reads_its_configuration_and_the_rules(tmp_path: Path) -> None:
    promtool("check", "config", str(REPOSITORY / "cluster/monitoring/prometheus.yaml"))
    values = {"$__rate_interval": "1m", "${run:regex}": "a", "$run": "a"}
    records = []
    for number, expr in enumerate(expressions()):
        for name, value in values.items():
            expr = expr.replace(name, value)  # noqa: PLW2901
        records.append({"record": f"panel:{number}", "expr": expr})
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    assert f"{len(records)} rules found" in promtool("check", "rules", str(tmp_path / "panels.yaml"))


@needs_promtool
@pytest.mark.parametrize("name", [alert.name for alert in ALERTS])
def test_an_alert_fires_when_it_should_and_not_else(tmp_path: Path, name: str) -> None:
    cases: list[dict[str, Any]] = []
    severity = next(alert.severity for alert in ALERTS if alert.name == name)
    for fires, inputs in [*((True, each) for each in FIRES[name]), *((False, each) for each in QUIET[name])]:
        # Labels and words of what fires are the rule's own; that it fires, and for which run, is the claim.
        count = f'count(ALERTS{{alertname="{name}", alertstate="firing", severity="{severity}", run="a"}}) or vector(0)'
        cases.append(
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in inputs.items()],
                "promql_expr_test": [
                    {"expr": count, "eval_time": "110m", "exp_samples": [{"labels": "{}", "value": int(fires)}]}
                ],
            }
        )
    rules_file = REPOSITORY / "cluster/monitoring/alerts.yaml"
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": [str(rules_file)], "tests": cases}))
    promtool("test", "rules", str(tmp_path / "test.yaml"))
