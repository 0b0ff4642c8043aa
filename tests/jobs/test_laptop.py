"""A laptop that has `ray[default]` and nothing else checks, shows and submits runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

from packaging.requirements import Requirement

from tests.conftest import RECIPES, REPOSITORY

SCRIPT = """
import contextlib, io, json, sys
refused = set(json.loads(sys.argv[1]))

class Laptop:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in refused:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Laptop())
from jobs import finetune, pretrain, submit
from system.recipe import load_recipe
from system.submit.follow import UnreachableError
for recipe in sys.argv[2:]:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        job = finetune if load_recipe(recipe).job == "finetune" else pretrain
        job.main(["--recipe", recipe, "--show"])
    assert "tokens of a clip" in shown.getvalue()
light = "ray" not in sys.modules
try:
    submit.main(["--address", "http://127.0.0.1:9", "--recipe", sys.argv[2]])
except UnreachableError:  # so far it came: Ray was imported, and nobody listens there
    print(json.dumps({"light": light, "numpy": "numpy" in sys.modules}))
"""


def brought_by(package: str, extra: str) -> set[str]:
    """Return the distributions that a package installs with one of its extras, itself too."""
    out: set[str] = set()
    wanted = [(package, extra)]
    while wanted:
        name, extra = wanted.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        out.add(key)
        for line in metadata.requires(name) or ():
            found = Requirement(line)
            needed = found.marker is None or any(found.marker.evaluate({"extra": one}) for one in ("", extra))
            if needed and re.sub(r"[-_.]+", "-", found.name).lower() not in out:
                wanted.append((found.name, next(iter(found.extras), "")))
    return out


def inside_ray() -> set[str]:
    """Return the modules that Ray carries in its own folder."""
    found = util.find_spec("ray")
    assert found and found.origin
    return {path.name.partition(".")[0] for path in (Path(found.origin).parent / "thirdparty_files").iterdir()}


def test_a_laptop_with_ray_alone_checks_shows_and_submits() -> None:
    there = brought_by("ray", "default")
    assert {"pydantic", "pyyaml", "requests"} <= there
    assert not {"numpy", "boto3", "torch"} & there
    inside = inside_ray()
    refused = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & there and module not in inside
    ]
    assert {"numpy", "torch", "boto3", "pyarrow"} <= set(refused)
    recipes = [str(path) for path in sorted(RECIPES.glob("*.yaml"))]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(refused), *recipes],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"light": True, "numpy": False}
