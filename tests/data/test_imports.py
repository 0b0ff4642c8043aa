"""What the kinds of processes import: none of them waits for a library that it does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, TINY

HEAVY = ("torch", "torchvision", "timm", "safetensors", "boto3", "botocore", "cv2", "ray", "pyarrow", "pydantic")


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("system.data.child", set()),  # one in each decode actor, and again whenever a video has killed it
        ("system.data.stages", {"pyarrow", "pydantic"}),
        ("system.data.assemble", {"pyarrow", "pydantic"}),
        ("system.storage", set()),
    ],
)
def test_a_process_imports_no_library_that_it_has_no_use_for(module: str, allowed: set[str]) -> None:
    found = run(f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])")
    assert set(found.split()) <= allowed


@pytest.mark.slow
@pytest.mark.parametrize("module", ["system.data.clock", "system.data.pipeline"])
def test_a_stream_imports_neither_torch_nor_a_client_of_storage(module: str) -> None:
    found = run(f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])")
    assert not {"torch", "timm", "boto3", "cv2"} & set(found.split())


def test_decoding_and_masking_without_motion_want_no_torch(generated: Path) -> None:
    script = f"""
import sys
from system.data.assemble import StreamSpec, layout_for, local_blocks
from system.data.dataset import ensure_index
from system.recipe import load_recipe
for method in ("videomae", "motionmae"):
    recipe = load_recipe("jobs/recipes/smoke.yaml", {[*TINY, f"run.storage={generated}"]} + ["method.name=" + method])
    assert not recipe.needs_motion
    block = next(local_blocks(StreamSpec(recipe, ensure_index(recipe), layout_for(recipe, 1), 8), 0, 0))
    print(int(block["weight"].sum()), "torch" in sys.modules)
"""
    assert run(script).splitlines() == ["16 False"] * 2


def test_augmenting_and_mixing_want_neither_torch_nor_the_package_of_timm(generated: Path) -> None:
    tiny = [each for each in TINY if "mask_ratio" not in each]
    script = f"""
import sys
from system.data.assemble import StreamSpec, layout_for, local_blocks
from system.data.dataset import ensure_index, ensure_labels
from system.recipe import load_recipe
given = {[*tiny, f"run.storage={generated}", "run.name=imports", "method.name=classify"]}
recipe = ensure_labels(load_recipe("jobs/recipes/smoke.yaml", given))
block = next(local_blocks(StreamSpec(recipe, ensure_index(recipe), layout_for(recipe, 1), 8), 0, 0))
print((block["share"] < 1).any(), *[name for name in ("torch", "torchvision", "timm") if name in sys.modules])
"""
    assert run(script) == "True"
