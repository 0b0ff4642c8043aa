"""What is wrong with a recipe, in our words: the key as its author typed it, the rule, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from system.methods import TASKS


def in_our_words(problem: Any, tree: Mapping[str, Any], root: type[BaseModel]) -> str:
    """Return the sentence about one problem.

    Args:
        problem: one of pydantic's errors.
        tree: the plain values that were checked.
        root: the class of a recipe.
    """
    path = _key_path(problem["loc"], root)
    name = ".".join(path)
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        near = _nearest(path, tree, root)
        hint = f"; did you mean {near}?" if near else ""
        owners = [method.name for method in TASKS.values() if path[-1] in method.options.model_fields]
        if path[0] == "method" and owners:
            hint = f"; it belongs to {', '.join(owners)}"
        return f"{name}: there is no such key{hint}"
    if problem["type"] == "missing":
        return f"{name}: is required"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f"method.name: is one of {', '.join(TASKS)}, got {_value_at(tree, ['method', 'name'])!r}"
    if problem["type"] == "model_type":
        return f"{name}: is a section of {', '.join(_known_keys(path, tree, root))}, got {problem['input']!r}"
    if problem["type"] == "value_error":
        return f"{name}: {message}" if name else message
    return f"{name}: {message[0].lower()}{message[1:]}, got {problem['input']!r}"


def _key_path(loc: Sequence[int | str], root: type[BaseModel]) -> list[str]:
    """Return the keys of a place in a recipe, without what pydantic adds: a union's branch, an index of a list."""
    parts = [str(part) for part in loc if not (part in TASKS and loc[0] == "method")]
    depth = 1
    while depth < len(parts) and (parts[:depth] == ["method"] or _section_at(parts[:depth], root)):
        depth += 1
    return parts[:depth]


def _section_at(path: Sequence[str], root: type[BaseModel]) -> type[BaseModel] | None:
    """Return the section that a path of keys leads to, if it is one; a method's own is not found here."""
    section = root
    for key in path:
        field = section.model_fields.get(key)
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
        section = kind
    return section


def _section_paths(root: type[BaseModel], above: Sequence[str] = ()) -> Iterator[list[str]]:
    section = _section_at(above, root)
    for name in section.model_fields if section else ():
        path = [*above, name]
        if path == ["method"] or _section_at(path, root):
            yield path
            yield from _section_paths(root, path)


def _nearest(path: list[str], tree: Mapping[str, Any], root: type[BaseModel]) -> str | None:
    """Return the known key that was probably meant: of the same section or one inside it, else of another one."""
    name, above = path[-1], path[:-1]
    known = _known_keys(above, tree, root)
    # A nested key is meant by its own name, and with its section's name in front: mask_actors is mask.actors.
    meant = {
        written: [below, key]
        for below in known
        for key in (_known_keys([*above, below], tree, root) if above else [])
        for written in (key, f"{below}_{key}")
    } | {key: [key] for key in known}
    found = difflib.get_close_matches(name, meant, n=1, cutoff=0.6)
    parts = set(name.split("_"))
    found = found or [key for key in known if name in key or parts & set(key.split("_"))]
    if found:
        return ".".join([*above, *meant[found[0]]])
    if len(path) < 2:
        return None
    others = {key: where for where in _section_paths(root) for key in _known_keys(where, tree, root)}
    elsewhere = difflib.get_close_matches(name, others, n=1, cutoff=0.75)
    return ".".join([*others[elsewhere[0]], elsewhere[0]]) if elsewhere else None


def _value_at(tree: Mapping[str, Any], path: Sequence[str]) -> Any:
    node: Any = tree
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _known_keys(path: Sequence[str], tree: Mapping[str, Any], root: type[BaseModel]) -> list[str]:
    if list(path) == ["method"]:
        name = _value_at(tree, ["method", "name"])
        return list(TASKS[name].options.model_fields) if name in TASKS else ["name"]
    section = _section_at(path, root)
    return list(section.model_fields) if section else []
