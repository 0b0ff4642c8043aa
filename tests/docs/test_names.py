"""What README and docs name is there: fields of recipes, files, options, variables of the environment, links' ends."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from system.report.recipe_page import sections
from tests.conftest import REPOSITORY
from tests.docs.commands import help_of, pages

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
FIELDS = {each.name for _, _, fields in sections() for each in fields} | {"method.name"}
# Folders from which pages name files, and what stands for a name of the reader's own.
ROOTS = ("", "system", "system/data", "system/train", "cluster", "tests")
OWN = re.compile(r"NAME|OUT/|\*")
_FILE = re.compile(r"[\w./*-]+/[\w.*-]+\.(?:py|yaml|md|sh|sbatch|json)")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
# Of programs that are none of ours.
OTHERS = {"--runtime-env", "--temp-dir"}


def spans(page: Path) -> list[str]:
    """Return what a page's text sets as code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", text)


@cache
def code() -> str:
    return "\n".join(path.read_text() for folder in ("system", "jobs") for path in (REPOSITORY / folder).rglob("*.py"))


@cache
def options() -> set[str]:
    """Return the options of all jobs."""
    jobs = (path.stem for path in (REPOSITORY / "jobs").glob("*.py") if "\n    run(main)\n" in path.read_text())
    return {option for job in jobs for option in re.findall(r"--[a-z][a-z0-9-]*", help_of(job))}


@PAGES
def test_a_field_that_a_page_names_is_one_of_the_recipe(page: Path) -> None:
    first = "|".join({name.partition(".")[0] for name in FIELDS})
    named = {name for span in spans(page) for name in re.findall(rf"^({first})((?:\.[a-z_]+)+)(?:$|[=: ])", span)}
    fields = {section + rest for section, rest in named if not rest.endswith((".safetensors", ".py", ".jsonl"))}
    assert not [
        name for name in fields if name not in FIELDS and not any(each.startswith(f"{name}.") for each in FIELDS)
    ]


@PAGES
def test_a_file_that_a_page_names_is_there(page: Path) -> None:
    named = [span for span in spans(page) if _FILE.fullmatch(span) and not OWN.search(span)]
    folders = [page.parent, *(REPOSITORY / root for root in ROOTS)]
    assert not [name for name in named if not any((folder / name).exists() for folder in folders)]


@PAGES
def test_an_option_that_a_page_names_is_one_of_a_job(page: Path) -> None:
    named = {option for span in spans(page) for option in re.findall(r"^(--[a-z][a-z0-9-]*)", span)}
    assert named <= options() | OTHERS


@PAGES
def test_a_variable_of_ours_that_a_page_names_is_read(page: Path) -> None:
    assert all(name in code() for name in re.findall(r"\bTUBELET_[A-Z_]+", page.read_text()))


@PAGES
def test_a_link_leads_to_something(page: Path) -> None:
    """Those that leave docs/ too, which the site's own check does not see."""
    targets = [target for target in _LINK.findall(page.read_text()) if "://" not in target]
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_every_page_is_linked_by_another_one() -> None:
    linked = {(page.parent / target).resolve() for page in pages() for target in _LINK.findall(page.read_text())}
    within = [page for page in pages() if page.is_relative_to(REPOSITORY / "docs") and page.name != "index.md"]
    assert not [page.name for page in within if page.resolve() not in linked]
