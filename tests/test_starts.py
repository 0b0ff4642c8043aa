"""Everything that starts Ray asks for a token, and shows its dashboard to its own machine or to nobody.

Goes over the code, the cluster files and the commands of the documents, so that a new start has to be safe as well.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.files import CLUSTER, FILES, ROOT
from tests.test_layers import modules

# Calls that start Ray here, or lead to a cluster (`_Timely` is a JobSubmissionClient); and the modules that may.
STARTS = {"ray.init", "Cluster", "JobSubmissionClient", "_Timely"}
KNOWN = {
    ("system.train.launch", "ray.init"),
    ("system.benchmark.streaming", "ray.init"),
    ("system.chaos.cluster", "Cluster"),
    ("system.chaos.autoscaled", "Cluster"),
    ("system.submit.client", "_Timely"),
}
# Files that start heads, and those that have one started.
HEADS = [path for path in FILES if "ray start --head" in path.read_text() and path.suffix != ".md"]
KUBERAY = [path for path in FILES if re.search(r"^kind: Ray", path.read_text(), re.MULTILINE)]


def found(path: Path) -> list[tuple[str, ast.Call, ast.FunctionDef]]:
    """Return the starts in a file with the functions that they stand in."""
    out: list[tuple[str, ast.Call, ast.FunctionDef]] = []
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            out += [(ast.unparse(call.func), call, function) for call in calls if ast.unparse(call.func) in STARTS]
    return out


def test_ray_is_started_or_spoken_to_in_known_places_alone() -> None:
    assert {(module, name) for module, path in modules() for name, _, _ in found(path)} == KNOWN


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_what_we_start_has_a_token_of_its_users_own_and_no_dashboard(module: str, path: Path) -> None:
    for name, call, function in found(path):
        keywords = {each.arg: ast.unparse(each.value) for each in call.keywords}
        if name == "ray.init" and keywords["address"] == "'local'":
            assert keywords["include_dashboard"] == "False"
            assert "make_token(os.environ)" in ast.unparse(function)
        elif name == "ray.init":
            assert "check_cluster(wanted, os.environ)" in ast.unparse(function)


@pytest.mark.parametrize("name", ["cluster", "autoscaled"])
def test_a_cluster_of_several_machines_on_one_has_no_dashboard_and_listens_to_this_machine(name: str) -> None:
    text = (ROOT / "system" / "chaos" / f"{name}.py").read_text()
    assert '"include_dashboard": False' in text
    assert '"node_ip_address": "127.0.0.1"' in text


@pytest.mark.parametrize("name", ["chaos", "autoscaling"])
def test_the_jobs_that_start_one_give_it_a_token_of_its_own(name: str) -> None:
    from system.chaos.environment import private_cluster

    assert private_cluster()["RAY_AUTH_MODE"] == "token"
    assert "variables = {**private_cluster()," in (ROOT / "jobs" / f"{name}.py").read_text()


@pytest.mark.parametrize("path", [*FILES, *(path for _, path in modules()), ROOT / "Makefile"], ids=str)
def test_nothing_of_ours_turns_tokens_off(path: Path) -> None:
    assert not re.search(r"""RAY_AUTH_MODE['"]?\]?\s*[=:,]\s*['"]?disabled['"]?\s*$""", path.read_text(), re.MULTILINE)


def test_there_are_heads_to_look_at() -> None:
    names = {str(path.relative_to(CLUSTER)) for path in HEADS}
    assert {"aws.yaml", "gcp.yaml", "local.yaml", "sky.yaml", "slurm/pretrain.sbatch"} <= names
    assert {path.name for path in KUBERAY} == {"raycluster.yaml", "rayjob-pretrain.yaml"}


@pytest.mark.parametrize("path", HEADS, ids=lambda path: path.name)
def test_heads_keep_their_dashboard_to_themselves_and_ask_for_a_token(path: Path) -> None:
    text = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    commands = [line for line in re.sub(r"\n\s+(?=--)", " ", text).splitlines() if "ray start --head" in line]
    assert commands
    assert all(re.search(r"--dashboard-host[= ]127\.0\.0\.1", line) for line in commands)
    assert re.search(r"RAY_AUTH_MODE[=:] ?token\b", text)


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_clusters_on_kubernetes_are_given_a_token_by_their_operator(path: Path) -> None:
    spec: Any = yaml.safe_load(path.read_text())["spec"]
    assert spec.get("rayClusterSpec", spec)["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("name", ["docs/clusters.md", "cluster/README.md"])
def test_commands_that_submit_say_the_mode_before_and_go_through_a_tunnel(name: str) -> None:
    text = (ROOT / name).read_text()
    addresses = re.findall(r"--address[= ](\S+)", text)
    assert addresses
    assert set(addresses) == {"http://127.0.0.1:8265"}
    assert text.index("RAY_AUTH_MODE=token") < text.index("--address")


@pytest.mark.parametrize("name", ["docs/clusters.md", "cluster/README.md"])
def test_tokens_are_made_for_their_user_alone(name: str) -> None:
    # Ray writes the file with the rights that the umask leaves.
    lines = [line for line in (ROOT / name).read_text().splitlines() if "get-auth-token --generate" in line]
    assert lines
    assert all("umask 077" in line for line in lines)
