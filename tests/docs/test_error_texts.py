"""The table of error texts in docs/failures.md: each is said by the program, and each is held by another test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import system.errors
from tests.conftest import REPOSITORY

_ROW = re.compile(r"^\| `([^`]+)` \| ([A-Za-z]+) \|", re.MULTILINE)
TEXTS = _ROW.findall((REPOSITORY / "docs" / "failures.md").read_text().partition("## What it says")[2])


def strings(*folders: str) -> Iterator[str]:
    """Yield every text in the code of some folders but for docstrings; parts of an f-string one by one."""
    for folder in folders:
        for path in (REPOSITORY / folder).rglob("*.py"):
            if path != Path(__file__):
                yield from texts_of(path.read_text())


def texts_of(code: str) -> Iterator[str]:
    """Yield the texts that code uses: one that stands alone, such as a docstring, does nothing."""
    nodes = list(ast.walk(ast.parse(code)))
    alone = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


SAID, TESTED = "\n".join(strings("system", "jobs")), "\n".join(strings("tests"))


def test_a_docstring_is_no_text_that_a_test_holds() -> None:
    assert list(texts_of('"""one"""\ndef two():\n    """three"""\n    return f"four {5}" + "six"')) == ["six", "four "]


def test_there_are_texts() -> None:
    assert len(TEXTS) > 30


@pytest.mark.parametrize(("text", "kind"), TEXTS, ids=[text for text, _ in TEXTS])
def test_an_error_text_is_said_by_the_program_and_held_by_a_test(text: str, kind: str) -> None:
    assert hasattr(system.errors, kind)
    assert text in SAID
    assert text in TESTED
