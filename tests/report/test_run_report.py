from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jobs.cli import REFERENCES
from jobs.cli import run as run_job
from jobs.report import main
from system.data.index import Index
from system.data.sources import build_index
from system.data.synthetic import moving_video
from system.errors import WeightsError
from system.recipe import Recipe, load_recipe
from system.report.markup import escape
from system.report.run_files import BadVideo, RunFiles, read_run
from system.report.run_report import duration, gallery_of_run, make_report
from system.report.run_verdict import judge
from system.report.verdict import Check
from system.train.claims import HELD, Claim, Process
from system.train.holder import this_process
from system.train.lease import Times
from tests.conftest import RECIPES, REPOSITORY, TINY
from tests.report.runs import BEGAN, lines, write, write_bad_videos, write_run
from tests.train.moments import TRAINING

PLAIN = [each for each in TINY if not each.startswith("method.")]
QUICK = Times(renew_s=0.02, expires_s=30.0, poll_s=0.01, settle_s=0.02)
HOSTILE = [
    ("<script>window.ran = 1</script>\"'.mp4", "<img src=x onerror='window.ran = 2'>"),
    ('"><svg onload=window.ran=3>', "javascript:window.ran=4 `</code><b>x</b>`"),
    ("\u202egpj.exe\u0000\x1b[31m", "</pre></details><iframe src=//elsewhere>"),
]


@pytest.fixture
def smoke(tmp_path: Path) -> Recipe:
    return load_recipe(RECIPES / "smoke.yaml", [f"run.storage={tmp_path}"])


class Balanced(HTMLParser):
    """Reads a page: its tags close in the order in which they were opened, and the addresses in them are known."""

    VOID = ("meta", "link", "img", "br", "line", "rect", "circle", "path", "polygon")

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.opened.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.opened.pop() == tag


def read(html: str) -> Balanced:
    found = Balanced()
    found.feed(html)
    assert not found.opened
    return found


def made(folder: Path) -> str:
    return make_report(read_run(str(folder)), "no clips were asked for", REFERENCES).html


def checks_of(folder: Path) -> dict[str, Check]:
    verdict = make_report(read_run(str(folder)), "no clips", REFERENCES).verdict
    return {check.name: check for check in verdict.checks}


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
    assert "<dt>ranks ran on</dt><dd>not recorded</dd>" in made(folder)
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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.4, "7 s"), (160, "2 min 40 s"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h"), (60, "1 min 0 s")],
)
def test_times_are_written_with_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_job_that_holds_the_run_now_is_told(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(5)))
    starts = json.loads((folder / "starts" / "00000001.json").read_text())
    starts["starts"][-1] |= {"ended_s": None, "reached": None}
    write(folder / "starts" / "00000001.json", starts)
    assert checks_of(folder)["Progress"].status == "bad"
    holder = {"user": "u", "host": "h", "boot": "", "namespace": "", "pid": 1, "started": ""}
    claim = {"lease": "x", "holder": holder, "beat": 1, "state": "held", "time_s": time.time(), "generation": 1}
    write(folder / "lease" / "00000001.json", claim)
    assert checks_of(folder)["Progress"].value == "running: 5 of 120 steps"
    assert "it goes on" in made(folder)


def test_a_run_whose_last_checkpoint_failed_is_not_complete(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(120)))
    starts = json.loads((folder / "starts" / "00000001.json").read_text())
    starts["starts"][-1]["why"] = "StorageFault: the disk is full"
    write(folder / "starts" / "00000001.json", starts)
    found = checks_of(folder)["Progress"]
    assert (found.status, found.value) == ("bad", "ended at 120 of 120 steps: StorageFault: the disk is full")
    write(folder / "summary.json", {"status": "stopped", "step": 120, "steps": 120})
    assert checks_of(folder)["Progress"].status == "bad"


def test_where_no_ledger_can_be_read_the_summary_says_whether_a_run_is_complete(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(120)))
    write(folder / "summary.json", {"status": "complete", "step": 120, "steps": 120})
    assert checks_of(folder)["Progress"].value == "complete: 120 of 120 steps"
    write(folder / "summary.json", {"status": "complete", "step": 100, "steps": 100})
    assert checks_of(folder)["Progress"].value == "stopped, resumable: 120 of 120 steps"


def test_whether_a_job_holds_the_run_is_not_a_matter_of_its_clock(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(5)))

    def runs(holder: Process, time_s: float) -> bool:
        write(folder / "lease" / "00000001.json", json.loads(Claim(1, "x", holder, 1, HELD, time_s).as_bytes()))
        return read_run(str(folder), times=QUICK).running

    here, elsewhere = this_process(), Process("ann", "trainer-7", "boot", "pid:[1]", 12, "34")
    assert runs(here, time.time() - 3600)
    assert not runs(replace(here, started="before"), time.time())
    assert not runs(elsewhere, time.time() - 3600)
    assert runs(elsewhere, time.time())


def test_a_job_that_is_alive_and_takes_no_step_is_worth_a_look(tmp_path: Path, smoke: Recipe) -> None:
    folder = write_run(tmp_path / "run", smoke, list(lines(48)))
    claim = Claim(1, "x", this_process(), 1, HELD, time.time())
    write(folder / "lease" / "00000001.json", json.loads(claim.as_bytes()))
    record = json.loads((folder / "goodput" / "00000001.json").read_text())
    write(folder / "goodput" / "00000001.json", record | {"live": TRAINING.as_dict()})
    assert checks_of(folder)["Progress"].value == "running: 48 of 120 steps"
    silent = replace(TRAINING, silent_s=900.0)
    write(folder / "goodput" / "00000001.json", record | {"live": silent.as_dict()})
    found = checks_of(folder)["Progress"]
    assert (found.status, found.value) == ("look", "running, but no step for 900 s: 48 of 120 steps")
