"""Nothing that storage holds is unpickled, and no text of it is run.

Every place in the code that could do it is found by name. Those that are let through stand here with their reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layers import modules

# Modules that make objects of bytes by running what the bytes say.
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "ray.cloudpickle", "marshal", "shelve", "joblib"}
# Functions by which bytes or texts become code or objects: Python's own, and others by the last part of their name.
OWN = {"eval", "exec", "compile", "__import__"}
CALLS = {
    *("torch.load", "jit.load", "np.load", "numpy.load", "yaml.load", "unsafe_load", "full_load", "load_all"),
    *("read_pickle", "read_hdf", "from_pretrained", "load_dataset"),
}
# (module, call) -> why it may stand there.
ALLOWED = {
    ("system.models.pickles", "torch.load"): "weights_only, in a process of its own that gives tensors alone",
    ("system.motion.raft_weights", "torch.load"): "weights_only; names and shapes must be torchvision's",
    ("system.data.scene_set", "np.load"): "allow_pickle=False, and a folder that the same job wrote",
    ("system.recipe_tree", "yaml.load"): "a SafeLoader, which makes plain values alone",
}
# What makes an allowed call harmless, by its name.
NEEDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def name_of(call: ast.Call) -> str:
    """Return the name that is called, with what stands before its dots."""
    return ast.unparse(call.func)


def matches(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith("." + wanted)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of a file that could run what they read."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = name_of(node)
            if name in OWN:
                yield name, node
            # safetensors.torch.load reads numbers.
            yield from ((each, node) for each in CALLS if matches(name, each) and not name.startswith("safetensors."))


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def keyword(call: ast.Call, name: str) -> object:
    return next(
        (each.value.value for each in call.keywords if each.arg == name and isinstance(each.value, ast.Constant)), None
    )


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_no_module_unpickles_or_runs_what_it_reads(module: str, path: Path) -> None:
    assert not imported(path) & MODULES
    for wanted, call in calls(path):
        assert (module, wanted) in ALLOWED, f"line {call.lineno}: {ast.unparse(call)}"
        if wanted in NEEDED:
            name, value = NEEDED[wanted]
            assert keyword(call, name) is value, ast.unparse(call)


def test_every_exception_is_still_there() -> None:
    assert {(module, wanted) for module, path in modules() for wanted, _ in calls(path)} == ALLOWED.keys()


def test_recipes_are_read_by_a_loader_that_makes_plain_values() -> None:
    import yaml

    from system.errors import RecipeError
    from system.recipe_tree import _Loader, parse_yaml

    assert issubclass(_Loader, yaml.SafeLoader)
    with pytest.raises(RecipeError, match="not YAML"):
        parse_yaml("run: !!python/object/apply:os.system ['true']", "mine.yaml")


def test_no_switch_by_which_a_library_unpickles_is_on() -> None:
    switches = (
        "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA",
        "AUTOLOAD_EXTENSION_TYPE",
        "TORCH_FORCE_NO_WEIGHTS_ONLY",
    )
    for _, path in modules():
        assert not any(switch in path.read_text() for switch in switches)


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from ray import cloudpickle", "torch.load(path)", "yaml.unsafe_load(text)", "eval(text)"],
)
def test_what_is_looked_for_is_found(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.py"
    path.write_text(line + "\n")
    assert imported(path) & MODULES or list(calls(path))
