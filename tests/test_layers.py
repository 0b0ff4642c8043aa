"""Imports point one way, and the heavy ones stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# From the highest layer to the lowest; a module imports from its own layer and from lower ones only.
LAYERS = (
    ("jobs",),
    ("system.chaos", "system.benchmark", "system.planning", "system.doctor", "system.submit"),
    ("system.report",),
    ("system.evaluate",),
    ("system.train",),
    ("system.data",),
    ("system.recipe", "system.recipe_tree", "system.recipe_words"),
    ("system.methods",),
    ("system.motion", "system.models"),
    ("system.core", "system.range_file", "system.seekable"),
    (
        "system.storage",
        "system.config",
        "system.section",
        "system.lazy",
        "system.collection",
        "system.logs",
        "system.monitoring",
        "system.access",
        "system.secret_words",
    ),
    ("system.errors", "system"),
)
RAY = {
    "system.submit.client",
    "system.chaos.autoscaled",
    "system.chaos.cluster",
    "system.evaluate.feature_stream",
    "system.evaluate.online",
    "system.evaluate.probe_actor",
    "system.benchmark.streaming",
    "system.monitoring.export",
    *(
        "system.data.clock",
        "system.data.coordinating",
        "system.data.draining",
        "system.data.landing",
        "system.data.pipeline",
        "system.data.sharing",
        "system.train.streams",
        "system.train.worker",
        "system.train.launch",
    ),
    *(
        "system.train.attempts",
        "system.train.fit",
        "system.train.group",
        "system.train.machines",
        "system.train.oversight",
    ),
}
DEEPSPEED = {"system.train.engine"}


def layer_of(module: str) -> int:
    for number, names in enumerate(LAYERS[:-1]):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    assert module in LAYERS[-1], f"{module} belongs to no layer"
    return len(LAYERS) - 1


def modules() -> Iterator[tuple[str, Path]]:
    for top in ("system", "jobs"):
        for path in sorted((REPOSITORY / top).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def is_module(name: str) -> bool:
    place = REPOSITORY / name.replace(".", "/")
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def imports(path: Path) -> set[str]:
    """Every module that a file imports, lazily or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            exist = {name for name in submodules if is_module(name)}
            found |= exist or {node.module}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazy":
            assert isinstance(node.args[0], ast.Constant)
            found.add(str(node.args[0].value))
    return found


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_imports_from_its_own_layer_and_lower_ones(module: str, path: Path) -> None:
    wrong = [
        name for name in imports(path) if name.split(".")[0] in ("system", "jobs") and layer_of(name) < layer_of(module)
    ]
    assert not wrong


@pytest.mark.parametrize(("package", "allowed"), [("ray", RAY), ("deepspeed", DEEPSPEED)])
def test_heavy_packages_are_imported_at_the_edge_only(package: str, allowed: set[str]) -> None:
    users = {module for module, path in modules() if package in {name.split(".")[0] for name in imports(path)}}
    assert users == allowed


def test_a_laptop_checks_recipes_with_pydantic_and_yaml_alone() -> None:
    script = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numpy", "torch", "ray", "deepspeed", "cv2", "av", "boto3", "pyarrow", "timm"):
            raise ImportError(name + " is not installed on a laptop")
sys.meta_path.insert(0, Refuse())
from system.recipe import load_recipe
for name in sys.argv[1:]:
    load_recipe(name)
"""
    recipes = [str(path) for path in (REPOSITORY / "jobs" / "recipes").glob("*.yaml")]
    done = subprocess.run(
        [sys.executable, "-c", script, *recipes], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_no_heavy_one() -> None:
    script = (
        "import sys, system; print([name for name in ('torch', 'ray', 'deepspeed', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module", ["jobs.running", "system.train.attempts", "system.train.streams", "system.train.group"]
)
def test_who_starts_a_run_or_deals_out_its_stream_imports_no_torch(module: str) -> None:
    script = f"import sys, {module}; print([name for name in ('torch', 'timm', 'deepspeed') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
