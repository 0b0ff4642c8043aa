"""The files that are made of the declarations: text by its place in the project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from system.monitoring.alerts import ALERTS, prometheus_rule, rules
from system.monitoring.dashboard import dashboard
from system.monitoring.series import SERIES

_MADE = "# Made by `python -m jobs.monitoring` of system/monitoring/alerts.py.\n"
DOCS = "docs/monitoring.md"
# What stands between these lines of the document is made.
BEGIN, END = "<!-- made: {} -->", "<!-- end -->"


def _yaml(values: Mapping[str, Any]) -> str:
    return _MADE + yaml.safe_dump(dict(values), sort_keys=False, width=110)


def made() -> dict[str, str]:
    """Return the files that are made as a whole."""
    return {
        "cluster/monitoring/alerts.yaml": _yaml(rules()),
        "cluster/monitoring/kubernetes-alerts.yaml": _yaml(prometheus_rule()),
        "cluster/monitoring/grafana/dashboards/tubelet.json": json.dumps(dashboard(), indent=1) + "\n",
    }


def with_tables(document: str) -> str:
    """Return a document with its tables made anew."""
    for name, table in (("series", _series()), ("alerts", _alerts())):
        begin = BEGIN.format(name)
        before, _, rest = document.partition(begin)
        document = f"{before}{begin}\n{table}{rest[rest.index(END) :]}"
    return document


def _series() -> str:
    lines = ["| series | unit | by | what |", "|---|---|---|---|"]
    for series in SERIES.values():
        labels = ",".join(label for label in series.labels if label != "run")
        name = f"`{series.exported}`" + (f" {{{labels}}}" if labels else "")
        lines.append(f"| {name} | {series.unit} | {series.by} | {series.help} |")
    return "\n".join(lines) + "\n"


def _alerts() -> str:
    lines = ["| alert | severity | when | what to do |", "|---|---|---|---|"]
    for alert in ALERTS:
        when = f"`{alert.expr}`" + (f" for {alert.wait}" if alert.wait != "0m" else "")
        lines.append(f"| {alert.name} | {alert.severity} | {when} | {alert.action} |")
    return "\n".join(lines) + "\n"
