"""What small things take until they are there."""

from __future__ import annotations

import pytest

from system.benchmark.children import python
from system.benchmark.stages import Asked
from system.benchmark.start_imports import PROCESSES, SHOW, lines, measure_imports
from system.errors import SystemFault


def test_lines_are_held_against_their_bounds_and_against_what_they_import() -> None:
    found = {"import": [0.3, 0.05, 0.04], "show": [0.5], "show, packages alone": [0.25]}
    for name in PROCESSES:
        found |= {name: [0.4], f"{name}, packages alone": [0.1]}
    package, shown, *processes = lines(found)
    assert package.ours == 0.05
    assert package.reached() is True
    assert shown.share == 0.5
    assert shown.reached() is True
    assert [line.share for line in processes] == [0.25] * len(PROCESSES)
    assert lines({**found, "show": [1.5]})[1].reached() is False


def test_what_is_shown_is_a_recipe() -> None:
    assert "global_batch: 2048" in python(*SHOW)


def test_a_process_that_ends_with_an_error_is_told_with_its_words() -> None:
    with pytest.raises(SystemFault, match="no such thing"):
        python("-c", "raise ValueError('no such thing')")


@pytest.mark.slow
def test_the_imports_run_in_a_short_form(tmp_path: object) -> None:
    made = measure_imports(Asked("synthetic", str(tmp_path), "cpu", short=True, say=lambda line: None))
    assert len(made) == 2 + len(PROCESSES)
    assert all(line.ours > 0 for line in made)
