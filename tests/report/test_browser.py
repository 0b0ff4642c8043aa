from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from jobs.cli import REFERENCES
from system.data.assemble import local_blocks
from system.data.dataset import ensure_index
from system.data.index import Index
from system.recipe import load_recipe
from system.report.compare_runs import comparison
from system.report.picture import shown_clips
from system.report.run_files import read_run
from system.report.run_report import gallery_of, write_report
from system.train.judging import build_model
from tests.conftest import RECIPES
from tests.report.browser import Browser, View, chromium
from tests.report.runs import lines, write_bad_videos, write_run
from tests.report.test_run_report import HOSTILE
from tests.small import stream_spec, tiny_recipe

# What somebody does who looks at the curves: a pointer over every chart, and everything unfolded.
TOUCH = """
for (const svg of document.querySelectorAll("svg[data-hover]")) {
  svg.scrollIntoView();
  const box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width / 2, clientY: box.top + 9}));
  if (!svg.parentElement.querySelector(".read").textContent) throw new Error("nothing is read");
}
for (const each of document.querySelectorAll("details")) each.open = true;
"""
VIEWS = [View(360, script=TOUCH), View(360, dark=True), View(1280, script=TOUCH), View(1280, dark=True)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with Browser(program) as running:
        yield running


@pytest.fixture(scope="module")
def page(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with clips and hostile names."""
    recipe = tiny_recipe(generated)
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", recipe, list(lines(300)))
    write_bad_videos(folder, [*HOSTILE, ("long/" + "a" * 300 + ".mp4", "b" * 300)])
    index = Index(ensure_index(recipe))
    clips = shown_clips(
        recipe, build_model(recipe, torch.device("cpu")), next(iter(local_blocks(stream_spec(recipe, 1), 0, 0))), 2
    )
    return Path(write_report(read_run(str(folder)), gallery_of(clips, recipe.grid, index), REFERENCES)[0])


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view.width}{'-dark' * view.dark}")
def test_a_report_is_whole_on_every_screen(browser: Browser, page: Path, view: View) -> None:
    seen = browser.see(page.as_uri(), view)
    assert seen.errors == []
    assert seen.page["scrolls"] <= view.width == seen.page["wide"]
    assert seen.page["out"] == []
    assert seen.page["pictures"] >= 2 * 4 * 2
    assert seen.page["empty"] == 0


def test_a_report_asks_for_nothing_and_runs_no_script_of_a_videos_name(browser: Browser, page: Path) -> None:
    seen = browser.see(page.as_uri(), View(1280))
    assert [each for each in seen.page["asked"] if not each.startswith("data:")] == []
    assert seen.page["ran"] is None


def test_light_and_dark_differ(browser: Browser, page: Path) -> None:
    light, dark = (browser.see(page.as_uri(), View(800, dark=dark)).page["ground"] for dark in (False, True))
    assert light != dark


def test_a_comparison_is_whole_on_every_screen(browser: Browser, tmp_path: Path) -> None:
    recipes = [load_recipe(RECIPES / "smoke.yaml", [f"train.base_lr={rate}"]) for rate in (0.1, 0.2, 0.3)]
    names = ("a-run-with-quite-a-long-name-to-fit-on-a-phone", "b", "c")
    folders = [write_run(tmp_path / name, each, list(lines(50))) for name, each in zip(names, recipes, strict=True)]
    out = tmp_path / "compared.html"
    out.write_text(comparison([read_run(str(folder)) for folder in folders], REFERENCES))
    for view in (View(360, script=TOUCH), View(1280, dark=True)):
        seen = browser.see(out.as_uri(), view)
        assert seen.errors == []
        assert seen.page["scrolls"] <= view.width
        assert seen.page["out"] == []
