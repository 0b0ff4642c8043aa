"""Every command of README and docs that can run here is run, as its page has it; those that train show their recipe.

Those of docs/start.md train too (test_walk.py). Why another one is not run stands in ways.py.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docs.commands import Command, all_commands
from tests.docs.test_walk import walk
from tests.docs.ways import NOT_HERE, NOT_OURS, OWN_WAYS, WAYS, reason, way
from tests.jobs.test_arguments import code_of

WALKED = {str(command) for command in walk()}
COMMANDS = [command for command in all_commands() if str(command) not in WALKED]
# Those that put the reader's own names into the files of cluster/.
EDITS = [command for command in COMMANDS if command.words[0] == "perl"]


def run_once() -> list[Command]:
    """Return the commands that are run: one of those that come to the same, on whatever pages."""
    found: dict[tuple[str | None, ...], Command] = {}
    for command in COMMANDS:
        how = way(command)
        if how is not None and reason(command) is None:
            found.setdefault((command.job, *how.arguments(command)), command)
    return list(found.values())


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_run_or_it_is_said_why_not(command: Command) -> None:
    assert reason(command) or way(command) or command in EDITS


def test_a_new_command_is_neither_run_nor_excused_by_chance() -> None:
    for words in (("frobnicate", "--all"), ("python", "-m", "jobs.unheard_of", "--out", "x")):
        command = Command("docs/new.md", words)
        assert reason(command) is None
        assert way(command) is None


def test_no_way_and_no_reason_stands_for_a_command_that_no_page_has() -> None:
    told = [str(command) for command in COMMANDS]
    assert not [pattern for pattern in (*OWN_WAYS, *NOT_HERE) if not any(re.search(pattern, each) for each in told)]
    assert set(WAYS) <= {command.job for command in COMMANDS}
    assert set(NOT_OURS) <= {command.words[0] for command in COMMANDS}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.docs.world import make_world

    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


def out_of(arguments: list[str]) -> Path | None:
    return Path(arguments[arguments.index("--out") + 1]) if "--out" in arguments else None


@pytest.mark.slow
@pytest.mark.parametrize("command", run_once(), ids=str)
def test_a_command_ends_well_and_leaves_what_its_page_says(
    command: Command,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(shutil.copytree(world, tmp_path / "here"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    how = way(command)
    assert how is not None
    arguments = how.arguments(command)
    out = out_of(arguments)
    if how.afresh and out is not None:
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    code = code_of(importlib.import_module(f"jobs.{command.job}").main, *arguments)
    told = capsys.readouterr()
    assert code == 0, told.err + told.out
    assert not [each for each in how.says if not re.search(each, told.out, re.MULTILINE)], told.out
    assert out is None or out.exists()
    folder = out if out is not None and out.is_dir() else Path()
    assert not [each for each in how.leaves if not list(folder.glob(each))]


@pytest.mark.parametrize("command", EDITS, ids=str)
def test_names_of_ones_own_are_put_into_the_files_of_the_cluster(command: Command, tmp_path: Path) -> None:
    if shutil.which("perl") is None:
        pytest.skip("needs perl, which most systems bring")
    shutil.copytree(REPOSITORY / "cluster", tmp_path / "cluster")
    *before, script, files = command.words
    values = {"ACCOUNT": "123456789012", "IMAGE": "ami-1234", "REGISTRY": "own.registry"}
    old = [re.sub(r"\{17\}", "", name) for name in re.findall(r"s/([^/]+)/", script)]
    edited = sorted(tmp_path.glob(files))
    assert all(any(name in path.read_text() for path in edited) for name in old)
    line = f'{" ".join(before)} "{script}" {files}'  # as on the page: the shell puts in the values
    subprocess.run(["bash", "-euc", line], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **values}, check=True)
    assert not [
        path.name for path in edited for name in re.findall(r"s/([^/]+)/", script) if re.search(name, path.read_text())
    ]
