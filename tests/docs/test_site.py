"""The documentation as a site, and the page that is made of the recipe's classes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from system.report.recipe_page import recipe_page, sections
from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert (tmp_path / "site" / "recipes" / "index.html").is_file()


@pytest.mark.slow
def test_the_site_asks_nothing_of_the_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True)
    page = (tmp_path / "site" / "index.html").read_text()
    loaded = [part for part in page.replace("'", '"').split('"') if part.startswith(("http:", "https:", "//"))]
    assert not [each for each in loaded if each.endswith((".js", ".css", ".woff2")) or "fonts." in each]


def test_the_page_of_recipes_is_what_the_classes_say() -> None:
    assert (REPOSITORY / "docs" / "recipes.md").read_text() == recipe_page(), (
        "write it anew: python -m jobs.fields --markdown > docs/recipes.md"
    )


def test_every_field_of_a_recipe_says_what_it_means() -> None:
    silent = [each.name for _, _, fields in sections() for each in fields if not each.meaning]
    assert not silent


def test_defaults_are_written_as_a_recipe_would_say_them() -> None:
    told = {each.name: each.default for _, _, fields in sections() for each in fields}
    assert told["data.uri"] == "required"
    assert told["data.lookahead"] == "null"
    assert told["train.betas"] == "[0.9, 0.95]"
    assert told["engine.compile"] == "false"
    assert told["train.base_lr"] == "0.00015"


def test_values_name_their_limits() -> None:
    told = {each.name: each.values for _, _, fields in sections() for each in fields}
    assert told["engine.zero_stage"] == "`0`, `1`, `2`, `3`"
    assert told["motion.updates"] == "whole number >= 1, <= 64"
    assert told["telemetry.price_per_hour"] == "number or null >= 0"
