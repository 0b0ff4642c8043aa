"""Every field of a recipe: `python -m jobs.fields [train] [data.stride] [--markdown]`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from jobs.cli import parser, run
from system.errors import RecipeError
from system.report.recipe_page import Described, recipe_page, sections

WIDTH = 100


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("fields", "Print what a recipe may say: each field's values, default and meaning.")
    options.add_argument("names", nargs="*", help="sections or fields, such as train or data.stride; default all")
    options.add_argument("--markdown", action="store_true", help="the whole as docs/recipes.md has it")
    given = options.parse_args(arguments)
    if given.markdown:
        print(recipe_page(), end="")
        return 0
    found = [
        (section, [each for each in fields if not given.names or _wanted(each.name, given.names)])
        for section, _, fields in sections()
    ]
    if not any(fields for _, fields in found):
        raise RecipeError(f"there is no section or field {', '.join(given.names)}; `python -m jobs.fields` lists all")
    for section, fields in found:
        if fields:
            print(f"{section}")
            for each in fields:
                print("\n".join(field_lines(each)))
            print()
    return 0


def _wanted(name: str, names: Sequence[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in names)


def field_lines(each: Described) -> list[str]:
    """Write a field in a few lines: name and default, then values and meaning."""
    free = ", free" if each.free else ""
    told = f"{each.values}{free}. {each.meaning}".replace("`", "")
    return [
        f"  {each.name} = {each.default}",
        *textwrap.wrap(told, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6),
    ]


if __name__ == "__main__":
    run(main)
