from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import run as run_job
from jobs.report import main
from system.recipe import Recipe, load_recipe
from tests.conftest import RECIPES, REPOSITORY
from tests.report.page import read
from tests.report.runs import lines, write_run


@pytest.fixture
def smoke(tmp_path: Path) -> Recipe:
    return load_recipe(RECIPES / "smoke.yaml", [f"run.storage={tmp_path}"])


def test_the_job_writes_the_page_into_the_folder(
    tmp_path: Path, smoke: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(30)))
    assert main(["--run", "run", "--storage", str(tmp_path)]) == 0
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    told = capsys.readouterr().out
    assert f"report: {folder}/report.html" in told
    assert "no checkpoint" in (folder / "report.html").read_text()


def test_a_report_without_a_gallery_waits_for_neither_torch_nor_ray(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(3)))
    script = (
        "import sys; from jobs.report import main; code = main(sys.argv[1:]);"
        "print(code, *[name for name in ('torch', 'timm', 'ray') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, "--run", str(folder), "--clips", "0"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"


def test_runs_are_compared_on_one_page(tmp_path: Path, smoke: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    other = load_recipe(RECIPES / "smoke.yaml", [f"run.storage={tmp_path}", "train.base_lr=0.5"])
    folders = [write_run(tmp_path / name, each, list(lines(9))) for name, each in (("a", smoke), ("b", other))]
    out = tmp_path / "compared.html"
    assert main(["--runs", *map(str, folders), "--out", str(out)]) == 0
    html = out.read_text()
    page = read(html)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert "train.base_lr" in html
    assert "data.size" not in html
    assert html.count('<li class="k1">b</li>') >= 5
    assert f"comparison: {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "one of the arguments --run --runs is required"),
        (["--runs", "a", "b"], "--runs needs --out FILE, where the comparison is written"),
        (["--run", "a", "--out", "b"], "--out is for --runs"),
        (["--run", "a", "--clips", "9"], "--clips is 0 to 4, got 9"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_way_out(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_job(main, arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_one_run_alone_is_not_compared(tmp_path: Path, smoke: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(3)))
    with pytest.raises(SystemExit) as ended:
        run_job(main, ["--runs", str(folder), "--out", str(tmp_path / "x.html")])
    assert ended.value.code == 2
    assert "2 to 8 runs can be compared on one page, got 1" in capsys.readouterr().err
