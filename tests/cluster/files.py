"""What the tests of cluster/ read: its files, the command lines in them and the machines that they declare."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from system.recipe import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
RAYJOB = "kuberay/rayjob-pretrain.yaml"
RAYCLUSTER = "kuberay/raycluster.yaml"

Node = Mapping[str, float]


def read(name: str) -> Any:
    """Parse a YAML file under cluster/."""
    return yaml.safe_load((CLUSTER / name).read_text())


def rename(tree: Any, path: Sequence[str | int], name: str) -> Any:
    """Return a copy of a tree in which the key at a path has another name."""
    changed = copy.deepcopy(tree)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[name] = node.pop(path[-1])
    return changed


def kuberay_types(name: str = RAYJOB) -> dict[str, Any]:
    """Return the groups of a KubeRay file as Ray's autoscaler will understand them."""
    spec = read(name)["spec"]
    cluster = {"metadata": {"name": "tubelet", "namespace": "tubelet"}, "spec": spec.get("rayClusterSpec", spec)}
    types: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    return types


def machines(types: Mapping[str, Any]) -> list[Node]:
    """Return what each node has when every group is as large as it may be, as Ray counts it; the head first."""
    heads = [each["resources"] for name, each in types.items() if name in ("head", "headgroup")]
    return heads + [
        each["resources"] for name, each in types.items() for _ in range(each["max_workers"]) if name not in ("head",)
    ]


def ray_up_machines(name: str) -> list[Node]:
    """Return what each node of a `ray up` file has at its largest."""
    return machines(read(name)["available_node_types"])


def sky_machines() -> list[Node]:
    """Return what each node of the SkyPilot task has at least."""
    task = read("sky.yaml")
    (gpus,) = re.findall(r":(\d+)$", task["resources"]["accelerators"])
    cpus = float(str(task["resources"]["cpus"]).rstrip("+"))
    return [{"CPU": cpus, "GPU": float(gpus)} for _ in range(task["num_nodes"])]


def slurm_machines() -> list[Node]:
    """Return what each node of the SLURM script has: one head, one decode node, two that train."""
    text = (CLUSTER / "slurm/pretrain.sbatch").read_text().replace("\\\n", " ")
    first, second = (int(each) for each in re.findall(r"#SBATCH --nodes=(\d+)", text))
    nodes: list[Node] = []
    starts = [line for line in text.splitlines() if "ray start" in line and not line.startswith("#")]
    for start, count in zip(starts, (1, first - 1, second), strict=True):
        cpus, gpus = re.search(r"--num-cpus=(\d+)", start), re.search(r"--num-gpus=(\d+)", start)
        assert cpus and gpus
        others = yaml.safe_load(re.findall(r"--resources='(.*?)'", start)[0])
        nodes += [{"CPU": float(cpus[1]), "GPU": float(gpus[1]), **others}] * count
    return nodes


# Where each file's machines are read; local.yaml declares none, its machines are there already.
MACHINES = {
    "aws.yaml": lambda: ray_up_machines("aws.yaml"),
    "gcp.yaml": lambda: ray_up_machines("gcp.yaml"),
    RAYJOB: lambda: machines(kuberay_types(RAYJOB)),
    RAYCLUSTER: lambda: machines(kuberay_types(RAYCLUSTER)),
    "slurm/pretrain.sbatch": slurm_machines,
}


def commands(path: Path) -> Iterator[list[str]]:
    """Yield the arguments of every `python -m jobs.pretrain` in a file, as a shell would split them."""
    text = path.read_text()
    if path.suffix == ".yaml":
        tree = next(each for each in yaml.safe_load_all(text) if each)
        found = (tree.get("spec") or {}).get("entrypoint") or tree.get("run") or ""
        text = "\n".join(line for line in [str(found)] if line)
    lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        _, found, arguments = line.partition("python -m jobs.pretrain ")
        if found:
            yield shlex.split(re.split(r"\s(?:\|\||&)", arguments)[0])


TOLD = [*(path for path in FILES if path.suffix in (".yaml", ".md")), ROOT / "docs/clusters.md"]
# By the file and its number there.
RUNS = {f"{path.relative_to(ROOT)}-{number}": run for path in TOLD for number, run in enumerate(commands(path))}


def recipe_of(run: Sequence[str]) -> Recipe:
    """Load the recipe of a command line."""
    option, name, *overrides = run
    assert option == "--recipe"
    return load_recipe(ROOT / name, overrides)


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions: (name, arguments)."""
    lines = [line for line in (CLUSTER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]
