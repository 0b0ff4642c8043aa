"""What README and docs tell somebody to type exists: the job, its options, the recipe and its fields, make's target."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from system.benchmark.stages import STAGES
from system.recipe import load_recipe
from tests.conftest import REPOSITORY
from tests.docs.commands import Command, all_commands, help_of, pages

COMMANDS = all_commands()
JOBS = [command for command in COMMANDS if command.job is not None]
MAKES = [command for command in COMMANDS if command.words[0] == "make"]
# Jobs whose overrides are laid over the recipe that they name.
WITH_RECIPE = {"pretrain", "finetune", "preflight", "submit", "plan"}
# Placeholders of a page.
PLACEHOLDERS = {"...", "NAME", "FILE"}


def test_there_are_commands_to_look_at() -> None:
    assert len(JOBS) >= 20
    assert {"pretrain", "preflight", "export", "embed", "probe", "segment"} <= {command.job for command in JOBS}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_command_stands_in_a_block_where_it_is_looked_at(page: Path) -> None:
    lines = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL).splitlines()
    assert not [line for line in lines if line.startswith("    ") and "python -m jobs." in line]


@pytest.mark.parametrize("command", JOBS, ids=str)
def test_a_documented_job_has_the_options_that_the_page_gives_it(command: Command) -> None:
    assert command.job is not None
    known = set(re.findall(r"--[a-z][a-z0-9-]*", help_of(command.job)))
    words = [word.strip("[]") for word in command.arguments]  # of what may be left out
    given = {word.partition("=")[0] for word in words if re.match("--[a-z]", word)}
    assert given <= known


def recipe_of(command: Command) -> str:
    words = command.arguments
    return words[words.index("--recipe") + 1] if "--recipe" in words else "..."


def test_the_stages_of_the_benchmark_that_a_page_offers_are_its_stages() -> None:
    usages = [" ".join(command.arguments) for command in JOBS if command.job == "benchmark"]
    offered = [found[1].split() for usage in usages if (found := re.match(r"\[([a-z ]+)\]", usage))]
    assert offered
    assert all({*each} == {*STAGES, "all"} for each in offered)


NAME_A_RECIPE = [each for each in JOBS if each.job in WITH_RECIPE and recipe_of(each) not in PLACEHOLDERS]


@pytest.mark.parametrize("command", NAME_A_RECIPE, ids=str)
def test_a_documented_recipe_loads_with_the_fields_that_the_page_gives_it(command: Command) -> None:
    overrides = [word for word in command.arguments if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+=(?!\.\.\.$).*", word)]
    if not any(word.startswith("data.uri=") for word in overrides):
        overrides.append("data.uri=somewhere")
    load_recipe(REPOSITORY / recipe_of(command), overrides)


@pytest.mark.parametrize("command", MAKES, ids=str)
def test_a_documented_make_target_exists(command: Command) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert command.words[1] in targets


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_job_that_a_text_names_exists(page: Path) -> None:
    named = set(re.findall(r"python -m jobs\.([a-z_]+)", page.read_text()))
    assert not {name for name in named if not (REPOSITORY / "jobs" / f"{name}.py").is_file()}
