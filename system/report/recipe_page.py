"""Every field of a recipe, read from the classes that check it: name, values, default, meaning.

So the page cannot say what the program does not do; a test compares docs/recipes.md with it.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from system.methods import TASKS
from system.recipe import Recipe
from system.section import Section

_SIGNS = ((Ge, "ge", ">="), (Gt, "gt", ">"), (Le, "le", "<="), (Lt, "lt", "<"))


@dataclass(frozen=True, slots=True)
class Described:
    """One field.

    Attributes:
        name: as an override says it, `section.field`.
        values: what it may be.
        default: as YAML would say it; "required" where there is none.
        free: whether a resumed run may change it.
        meaning: in a sentence.
    """

    name: str
    values: str
    default: str
    free: bool
    meaning: str


def sections() -> Iterator[tuple[str, str, list[Described]]]:
    """Yield each section's name, what it is about, and its fields; of `method` one for each name that it may have."""
    for name, info in Recipe.model_fields.items():
        if name == "method":
            for task in TASKS.values():
                yield f"method, name: {task.name}", _about(task.options), list(_fields("method", task.options))
            continue
        kind = _section_of(info.annotation)
        assert kind is not None, name
        yield name, _about(kind), list(_fields(name, kind))


def _about(kind: type[BaseModel]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _section_of(annotation: Any) -> type[Section] | None:
    """Return the section that a field is, also where it may be left out."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, Section):
            return each
    return None


def _fields(where: str, kind: type[BaseModel]) -> Iterator[Described]:
    for name, info in kind.model_fields.items():
        inner = _section_of(info.annotation)
        if inner is not None:
            yield from _fields(f"{where}.{name}", inner)
            continue
        if where == "method" and name == "name":
            continue
        extra = info.json_schema_extra
        yield Described(
            f"{where}.{name}",
            values_of(info),
            default_of(info),
            isinstance(extra, dict) and bool(extra.get("free")),
            info.description or "",
        )


def default_of(info: FieldInfo) -> str:
    """Return a default as YAML says it."""
    value = info.get_default(call_default_factory=True) if not info.default_factory_takes_validated_data else None
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def values_of(info: FieldInfo) -> str:
    """Return what a field may be, in words."""
    rules = [*info.metadata]
    words = _type_words(info.annotation, rules)
    bounds = [
        f"{sign} {getattr(rule, name):g}" for rule in rules for kind, name, sign in _SIGNS if isinstance(rule, kind)
    ]
    return " ".join([words, *([", ".join(bounds)] if bounds else [])])


def _type_words(annotation: Any, rules: list[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        rules += [rule for rule in arguments[1:] if not isinstance(rule, AfterValidator)]
        return _type_words(arguments[0], rules)
    if origin is Literal:
        return ", ".join(f"`{str(each).lower() if isinstance(each, bool) else each}`" for each in arguments)
    if origin in (Union, types.UnionType):
        parts = [_type_words(each, rules) for each in arguments if each is not type(None)]
        return " or ".join(parts) + (" or null" if type(None) in arguments else "")
    if origin is tuple:
        inside = [_type_words(each, rules) for each in arguments if each is not Ellipsis]
        return f"list of {inside[0]}" if Ellipsis in arguments else f"[{', '.join(inside)}]"
    if origin is dict:
        return "mapping"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, re.sub(r"^.*\.", "", str(annotation)))


def recipe_page() -> str:
    """Return the page in Markdown."""
    lines = [
        "# Recipes",
        "",
        "A recipe is one YAML file of sections. `extends: other.yaml` lays it over another one; `section.field=value`",
        "on the command line is laid over both. An unknown key is refused with the nearest known one, and all mistakes",
        "are told at once. `python -m jobs.pretrain --recipe FILE --show` prints the recipe with every field resolved,",
        "and the run keeps it as `recipe.yaml`. `python -m jobs.fields train` prints this table in a terminal.",
        "",
        "A field marked *free* may change when a run is resumed: it alters how a step is carried out, not what it",
        "computes. Any other change is refused, with both values. The recipes of the methods, with the source of every",
        "number, lie in `jobs/recipes`.",
        "",
    ]
    for name, about, fields in sections():
        lines += [f"## {name}", "", about, ""]
        if not fields:
            continue
        lines += ["| field | values | default | free | |", "|---|---|---|---|---|"]
        for each in fields:
            values, meaning = (text.replace("|", "\\|") for text in (each.values, each.meaning))
            lines.append(f"| `{each.name}` | {values} | `{each.default}` | {'free' if each.free else ''} | {meaning} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
