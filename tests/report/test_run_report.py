from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.cli import REFERENCES
from system.data.index import Index
from system.data.sources import build_index
from system.data.synthetic import moving_video
from system.errors import WeightsError
from system.recipe import Recipe, load_recipe
from system.report.markup import escape
from system.report.run_files import BadVideo, RunFiles, read_run
from system.report.run_report import duration, gallery_of_run
from system.report.run_verdict import judge
from tests.conftest import RECIPES, TINY
from tests.report.page import checks_of, made, read
from tests.report.runs import BEGAN, lines, write, write_bad_videos, write_run

PLAIN = [each for each in TINY if not each.startswith("method.")]
HOSTILE = [
    ("<script>window.ran = 1</script>\"'.mp4", "<img src=x onerror='window.ran = 2'>"),
    ('"><svg onload=window.ran=3>', "javascript:window.ran=4 `</code><b>x</b>`"),
    ("\u202egpj.exe\u0000\x1b[31m", "</pre></details><iframe src=//elsewhere>"),
]


@pytest.fixture
def smoke(tmp_path: Path) -> Recipe:
    return load_recipe(RECIPES / "smoke.yaml", [f"run.storage={tmp_path}"])


def test_a_page_stands_by_itself(tmp_path: Path, smoke: Recipe) -> None:
    page = read(made(write_run(tmp_path / "run", smoke, list(lines(120)))))
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not page.handlers


def test_names_and_reasons_are_text_and_nothing_else(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(12)))
    write_bad_videos(folder, HOSTILE)
    starts = json.loads((folder / "starts" / "00000001.json").read_text())
    starts["starts"][0]["why"] = HOSTILE[0][0]
    write(folder / "starts" / "00000001.json", starts)
    write(folder / "skips.json", {"steps": {"3": HOSTILE[1][0]}})
    html = made(folder)
    page = read(html)
    assert html.count("<script") == 1
    assert not page.handlers
    assert not page.tags & {"iframe", "img", "b", "object", "form"} - {"b"}
    assert escape(HOSTILE[0][0]) in html
    assert all(each in "\n\t" or each.isprintable() for each in html)


def test_an_escaped_text_ends_no_element_and_no_attribute() -> None:
    assert escape("""<a href="x" title='y'>&""") == "&lt;a href=&quot;x&quot; title=&#x27;y&#x27;&gt;&amp;"
    assert escape("\u202ea\x00") == "\\u202ea\\u0000"


def test_the_verdict_stands_first_and_the_sections_in_their_order(tmp_path: Path, smoke: Recipe) -> None:
    html = made(write_run(tmp_path / "run", smoke, list(lines(120))))
    order = re.findall(r'<section id="(\w+)"', html)
    assert order == ["verdict", "curves", "time", "restarts", "gallery", "videos", "recipe"]
    assert html.index("<h1") < html.index('<section id="verdict"')


def test_a_run_of_the_smoke_recipe_is_held_against_its_band(tmp_path: Path, smoke: Recipe) -> None:
    good = write_run(tmp_path / "good", smoke, list(lines(120, loss=_like_the_reference)))
    assert checks_of(good)["Loss"].status == "good", checks_of(good)["Loss"]
    assert 'class="band"' in made(good)
    bad = write_run(tmp_path / "bad", smoke, list(lines(120, loss=0.3)))
    assert checks_of(bad)["Loss"].status == "bad"
    assert "Not healthy" in made(bad)


def test_a_run_without_a_reference_is_told_so_and_how_one_is_made(tmp_path: Path, smoke: Recipe) -> None:
    told = "The band of the loss is missing"
    assert told not in made(write_run(tmp_path / "smoke", smoke, list(lines(20))))
    other = load_recipe(RECIPES / "smoke.yaml", [f"run.storage={tmp_path}", "train.base_lr=0.5"])
    folder = write_run(tmp_path / "other", other, list(lines(20)))
    assert told in made(folder)
    assert "the nearest, smoke, differs in train.base_lr=0.5" in checks_of(folder)["Loss"].rule
    assert "<code>python -m jobs.reference --recipe FILE</code>" in made(folder)


def _like_the_reference(step: int) -> float:
    points = json.loads(REFERENCES.read_text())["smoke"]["points"]
    return next(((low + high) / 2 for at, low, high in points if step < at), 0.0)


def test_a_restart_is_marked_with_its_reason_on_both_axes(tmp_path: Path, smoke: Recipe) -> None:
    html = made(write_run(tmp_path / "run", smoke, list(lines(40))))
    assert html.count("restart at step 10: a worker died") >= 4
    assert "2 starts, 1 restart; 10 steps done again." in html
    assert "lost and done again" in html


def test_the_environment_names_what_the_ranks_ran_on_and_of_an_older_run_that_it_is_not_known(
    tmp_path: Path, smoke: Recipe
) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(40)))
    assert "<dt>ranks ran on</dt><dd>not recorded in 2 of 2 starts</dd>" in made(folder)
    told = json.loads((folder / "starts" / "00000001.json").read_text())
    hardware = {"device": "NVIDIA H200", "driver": "570.86.10", "torch": "2.11.0+cu128"}
    told["starts"][1]["ran_on"] = [{"hardware": hardware, "ranks": {"10.0.0.1": 1}}]
    write(folder / "starts" / "00000001.json", told)
    html = made(folder)
    line = "NVIDIA H200, GPU driver 570.86.10, torch 2.11.0+cu128: 1 machine (10.0.0.1), 1 rank, in 1 of 2 starts"
    assert f"<dt>ranks ran on</dt><dd>{line}</dd>" in html
    assert "<dt>driver&#x27;s torch</dt><dd>2.0</dd>" in html


def test_files_that_the_index_leaves_out_are_a_share_of_all_files(tmp_path: Path) -> None:
    for name, data in (("a.mp4", moving_video(0, 1, size=(48, 48), num_frames=4)[1]), ("b.mp4", b"none")):
        (tmp_path / name).write_bytes(data)
    index = Index(build_index(str(tmp_path), str(tmp_path / "index.parquet"), workers=1).uri)
    run = RunFiles(str(tmp_path), "run", index=index, bad_videos=(BadVideo("b.mp4", "open", "no container"),))
    (found,) = [check for check in judge(run, "no band").checks if check.name == "Bad videos"]
    assert found.value.startswith("1 of 2 videos (50.0%)")


def test_a_classifier_has_no_gallery_and_says_why_without_its_model(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "smoke.yaml", [*PLAIN, "method.name=classify"])
    assert (
        gallery_of_run(RunFiles(str(tmp_path), "run", recipe=recipe), 2)
        == "a classifier hides nothing that could be shown"
    )


def test_probes_of_checkpoints_have_a_curve_and_those_that_failed_are_left_out(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(40)))
    assert "Accuracy of probes" not in made(folder)
    rows = [
        {"step": 10, "probe/knn_top1": 0.25, "probe/linear_top1": 0.5},
        {"step": 20, "error": "no videos"},
        {"step": 30, "probe/knn_top1": 0.75},
    ]
    (folder / "probe.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    html = made(folder)
    assert "Accuracy of probes" in html
    assert "30: 75" in html
    assert "no videos" not in html


def test_a_run_without_a_step_has_a_page(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, [])
    (folder / "metrics.jsonl").unlink()
    html = made(folder)
    assert "Not a step was logged." in html
    assert checks_of(folder)["Loss"].status == "open"


def test_a_folder_with_a_recipe_alone_has_a_page(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, [])
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.name != "recipe.yaml":
            path.rmdir() if path.is_dir() else path.unlink()
    html = made(folder)
    assert "Nothing to judge yet" in html
    read(html)


def test_one_line_of_metrics_is_a_page(tmp_path: Path, smoke: Recipe) -> None:
    html = made(write_run(tmp_path / "run", smoke, list(lines(1))))
    assert "<circle" in html
    read(html)


def test_losses_that_are_no_numbers_are_bad_and_have_a_page(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(30, loss=None, grad_norm=None)))
    found = checks_of(folder)
    assert (found["Loss"].status, found["Gradient norm"].status) == ("bad", "bad")
    assert "nothing was logged" in made(folder)


def test_a_damaged_folder_says_what_could_not_be_read(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(5)))
    for name in ("summary.json", "skips.json", "goodput/00000001.json", "starts/00000001.json"):
        (folder / name).write_text("{")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    run = read_run(str(folder))
    assert {"summary.json", "skips.json", "goodput/", "starts/", "metrics.jsonl"} <= set(run.missing)
    assert "it has 1 line that cannot be read" in made(folder)


def test_a_recipe_of_another_version_is_shown_as_it_is_written(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(20)))
    with (folder / "recipe.yaml").open("a") as file:
        file.write("a_section_of_later: {x: 12345}\n")
    html = made(folder)
    assert "12345" in html
    assert "its recipe cannot be read" in html


def test_a_long_run_makes_a_small_page(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(20_000, loss=lambda step: 1 + (step == 12_345) * 8)))
    html = made(folder)
    assert len(html) < 600_000
    assert checks_of(folder)["Loss"].status != "open"


def test_a_run_of_many_restarts_and_skips_makes_a_small_page(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(1200)))
    names = ("began_s", "from_step", "ranks", "ended_s", "reached", "why")
    starts = [dict(zip(names, (BEGAN + n, n, 1, BEGAN + n + 1, n + 2, f"death {n}"), strict=True)) for n in range(1000)]
    for job in (0, 1):
        told = {"machine": {}, "starts": starts[500 * job : 500 * job + 500]}
        write(folder / "starts" / f"0000000{job + 1}.json", told)
    write(folder / "skips.json", {"steps": {str(step): "a spike" for step in range(1000)}})
    html = made(folder)
    assert len(html) < 600_000
    assert "999 restarts" in html
    assert "restart at step 999: death 998" in html
    assert "restart at step 900: " not in html


def test_a_folder_that_is_no_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is no run's folder: there is no recipe\.yaml in it"):
        read_run(str(tmp_path))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.4, "7 s"), (160, "2 min 40 s"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h"), (60, "1 min 0 s")],
)
def test_times_are_written_with_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
