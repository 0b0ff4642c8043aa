"""cluster/monitoring: pages on loopback alone, images of a version, files that are there, and Kubernetes' own types.

No package ships schemas of Prometheus, Grafana, Compose or Prometheus' operator; promtool judges Prometheus' files
where it is installed (tests/monitoring/test_alerts.py), the rest is held to what it has to say here.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from system.monitoring.files import made
from tests.cluster.files import CLUSTER, read

COMPOSE = read("monitoring/compose.yaml")
START = (CLUSTER / "monitoring/start.sh").read_text()
KUBERNETES: list[Any] = list(yaml.safe_load_all((CLUSTER / "monitoring/kubernetes.yaml").read_text()))


def test_images_have_a_version() -> None:
    for service in COMPOSE["services"].values():
        assert re.fullmatch(r"docker\.io/[\w/-]+:v?\d+\.\d+\.\d+", service["image"])


def test_pages_are_open_to_loopback_alone() -> None:
    services = COMPOSE["services"]
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert not any("ports" in service for service in services.values())
    assert '--web.listen-address="127.0.0.1:' in START
    assert "GF_SERVER_HTTP_ADDR=127.0.0.1" in START


def test_files_that_are_mounted_or_named_are_there() -> None:
    folder = CLUSTER / "monitoring"
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (folder / source).exists()
            elif not source.startswith("/"):
                assert source in COMPOSE["volumes"]
    for name in read("monitoring/prometheus.yaml")["rule_files"]:
        assert (folder / name).is_file()
        assert f"cluster/monitoring/{name}" in made()
    for name in re.findall(r"\$here/([\w/.-]+)", START):
        assert (folder / name).exists()


def test_prometheus_finds_nodes_where_rays_dashboard_lists_them() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    (job,) = read("monitoring/prometheus.yaml")["scrape_configs"]
    (files,) = job["file_sd_configs"]
    assert files["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]
    assert any(volume.startswith("/tmp/ray:/tmp/ray") for volume in COMPOSE["services"]["prometheus"]["volumes"])


def test_grafana_is_told_its_places_by_both_ways_of_starting_it() -> None:
    wanted = set()
    for name in ("datasources/prometheus.yaml", "dashboards/tubelet.yaml"):
        wanted |= set(re.findall(r"\$(\w+)", (CLUSTER / "monitoring/grafana/provisioning" / name).read_text()))
    wanted -= {"__rate_interval"}
    assert wanted == {"TUBELET_PROMETHEUS", "TUBELET_DASHBOARDS"}
    assert wanted <= set(COMPOSE["services"]["grafana"]["environment"])
    assert all(f"{name}=" in START for name in wanted)


def test_prometheus_reaches_the_port_of_the_metrics_and_no_other() -> None:
    monitor, policy = KUBERNETES
    kubernetes_validate.validate(policy, kubernetes_validate.latest_version(), strict=True)
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert rule["from"] and all(list(each) == ["namespaceSelector"] for each in rule["from"])
    assert monitor["spec"]["selector"] == policy["spec"]["podSelector"]
    assert [each["port"] for each in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]
    assert {each["metadata"]["namespace"] for each in KUBERNETES} == {"tubelet"}


def start(folder: Path, *programs: str) -> subprocess.Popen[str]:
    """Start start.sh with stand-ins for programs, which write down what they were started with and that they ended."""
    for name in programs:
        stand_in = folder / name
        stand_in.write_text(
            f'#!/bin/bash\necho "$*" > {folder}/{name}.args\n'
            f"trap 'touch {folder}/{name}.ended; exit' TERM\nwhile true; do sleep 0.05; done\n"
        )
        stand_in.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder}:/usr/bin:/bin",
        "PROMETHEUS": str(folder / "prometheus"),
        "GRAFANA": str(folder / "grafana"),
    }
    command = ["bash", str(CLUSTER / "monitoring/start.sh"), str(folder / "data")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until_there(*files: Path) -> None:
    end = time.monotonic() + 30
    while not all(file.is_file() and file.read_text() for file in files):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("programs", [("prometheus", "grafana"), ("prometheus",)])
def test_the_script_starts_what_is_installed_and_ends_it_with_itself(tmp_path: Path, programs: tuple[str, ...]) -> None:
    script = start(tmp_path, *programs)
    until_there(*(tmp_path / f"{name}.args" for name in programs))
    script.send_signal(signal.SIGTERM)
    told, _ = script.communicate(timeout=30)
    assert script.returncode == 0
    assert all((tmp_path / f"{name}.ended").exists() for name in programs)
    assert ("Prometheus alone" in told) == ("grafana" not in programs)
    assert f"--config.file={CLUSTER}/monitoring/prometheus.yaml" in (tmp_path / "prometheus.args").read_text()


def test_the_script_says_what_is_missing(tmp_path: Path) -> None:
    script = start(tmp_path)
    told, _ = script.communicate(timeout=30)
    assert script.returncode == 2
    assert "is not installed" in told
