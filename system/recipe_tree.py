"""A recipe before it is checked: YAML files, their parents, and overrides, merged into one tree of plain values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from system.errors import RecipeError
from system.methods import TASKS

# Nesting deeper than this in `extends` is a circle.
MAX_PARENTS = 8


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but for `1e-4`, which it takes for a text, and for keys that are there twice.

    Of those it takes the last one, so a section that is there twice would lose what the first one says.
    """

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Return a mapping as it is written, whose keys are all different; what `<<` brings is not among them yet."""
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*)(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML.

    Raises:
        RecipeError: if it is none; says where.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def read_tree(path: Path, depth: int = 0) -> dict[str, Any]:
    """Read a recipe file merged over its parents.

    Raises:
        RecipeError: if it is not there, cannot be read, is no mapping, or its parents go round in a circle.
    """
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.stem, known, n=1)
        hint = f"; did you mean {path.parent / near[0]}.yaml?" if near else ""
        raise RecipeError(f"there is no recipe {path}{hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as a text in UTF-8: {error}") from error
    tree = parse_yaml(text, str(path)) or {}
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of sections, got {type(tree).__name__}")
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise RecipeError(f"{path}: `extends` is the path of one recipe, got {parent!r}")
    if depth >= MAX_PARENTS:
        raise RecipeError(f"{path}: `extends` goes round in a circle")
    return merge(read_tree(path.parent / parent, depth + 1), tree)


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over` laid on top, section by section.

    A section `method` of another name replaces the old one, but for the keys that both methods have.
    """
    out = dict(base)
    for key, value in over.items():
        if key == "method" and isinstance(value, Mapping) and isinstance(out.get(key), dict):
            out[key], _ = merge_method(out[key], value)
        elif isinstance(value, Mapping) and isinstance(out.get(key), dict):
            out[key] = merge(out[key], value)
        else:
            out[key] = dict(value) if isinstance(value, Mapping) else value
    return out


def merge_method(base: dict[str, Any], over: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Lay a method section over another and return it with the keys that were dropped on the way."""
    name = over.get("name", base.get("name"))
    if name == base.get("name") or name not in TASKS:
        return {**base, **over}, []
    known = TASKS[name].options.model_fields
    dropped = sorted(key for key in base if key not in known)
    return {**{key: value for key, value in base.items() if key in known}, **over}, dropped


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split `section.field=value` into its path and its value, read as YAML.

    Raises:
        RecipeError: if it is not of that form.
    """
    path, sign, value = text.partition("=")
    if not sign or "." not in path or not all(path.split(".")):
        raise RecipeError(f"an override is section.field=value, got {text!r}")
    return path.strip().split("."), parse_yaml(value, f"the value of {path}")


def lay_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Lay overrides over a tree; `method.name` first, so that the others meet the right section."""
    lines: list[str] = []
    parsed = [parse_override(text) for text in overrides]
    for path, value in sorted(parsed, key=lambda item: item[0] != ["method", "name"]):
        if path == ["method", "name"] and isinstance(tree.get("method"), dict):
            tree["method"], dropped = merge_method(tree["method"], {"name": value})
            if dropped:
                lines.append(f"method.name={value}: dropped {', '.join(dropped)}, which {value} does not have")
            continue
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise RecipeError(f"{'.'.join(path)}: {key} is a value and has no fields")
        node[path[-1]] = value
    return tree, lines
