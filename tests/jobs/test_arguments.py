"""What a user sees of the jobs before anything is started."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs import index, learning_check, make_shards, make_videos, monitoring, preflight, pretrain, probe
from jobs.cli import duration, run
from jobs.running import STOP_WAIT, short_stop, stop_grace_s
from jobs.settled import SUBMITTED, settled
from system.recipe import recipe_from
from system.recipe_tree import parse_yaml
from tests.conftest import RECIPES, REPOSITORY, TINY
from tests.small import tiny_recipe

SMOKE = str(RECIPES / "smoke.yaml")
Output = pytest.CaptureFixture[str]


def code_of(main: object, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run(main, arguments)  # type: ignore[arg-type]
    return int(str(ended.value.code))


def test_show_prints_a_recipe_that_can_be_given_again(capsys: Output) -> None:
    assert code_of(pretrain.main, "--recipe", SMOKE, "--show", "train.steps=7") == 0
    recipe = recipe_from(parse_yaml(capsys.readouterr().out, "shown"), "shown")
    assert recipe.train.steps == 7


def test_show_needs_neither_torch_nor_ray() -> None:
    script = (
        "import sys; from jobs.pretrain import main; main(sys.argv[1:]);"
        "assert not {'torch', 'ray', 'deepspeed'} & set(sys.modules), 'heavy'"
    )
    subprocess.run(
        [sys.executable, "-c", script, "--recipe", SMOKE, "--show"],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def test_an_unknown_key_is_refused_with_the_nearest_known_one_and_nothing_is_started(
    tmp_path: Path, capsys: Output
) -> None:
    assert code_of(pretrain.main, "--recipe", SMOKE, f"run.storage={tmp_path}/runs", "data.strid=3") == 2
    error = capsys.readouterr().err
    assert "data.strid: there is no such key; did you mean data.stride?" in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_padding_above_the_limit_names_the_worker_counts_that_fit(tmp_path: Path, capsys: Output) -> None:
    given = ["--recipe", SMOKE, *TINY, f"run.storage={tmp_path}/runs", "resources.num_workers=11"]
    assert code_of(pretrain.main, *given) == 2
    assert "27% of the work is padding" in (error := capsys.readouterr().err)
    assert "more than resources.max_padding=25%" in error
    assert "worker counts that fit: 7, 8, 9, 10\n" in error
    assert not (tmp_path / "runs").exists()


def test_a_missing_folder_and_an_empty_one_are_one_sentence_each(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "empty").mkdir()
    for name, says in (("none", "there is no"), ("empty", "no video")):
        given = ["--recipe", SMOKE, *TINY, f"run.storage={tmp_path}/runs", f"data.uri={tmp_path}/{name}"]
        assert code_of(pretrain.main, *given) == 2
        error = capsys.readouterr().err
        assert f"{tmp_path}/{name}" in error
        assert says in error
        assert error.count("\n") == 1


def test_a_recipe_that_is_not_there_is_named(capsys: Output) -> None:
    assert code_of(pretrain.main, "--recipe", "none.yaml") == 2
    assert "none.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("main", [pretrain.main, preflight.main, index.main, make_shards.main, make_videos.main])
def test_missing_arguments_point_to_help(main: object, capsys: Output) -> None:
    assert code_of(main) == 2
    assert "see --help" in capsys.readouterr().err


def test_preflight_shows_all_of_its_findings(generated: Path, capsys: Output) -> None:
    given = ["--recipe", SMOKE, *TINY, f"run.storage={generated}", "run.name=checked", "--no-cluster", "--rate", "4"]
    assert code_of(preflight.main, *given) == 0
    told = capsys.readouterr().out
    for says in (
        "ok    step        16 clips over 2 workers: 1 x 8 clips each, padding 0%",
        "ok    run folder  writable",
        "ok    index       16 videos, 0 rejected",
        "ok    sample      8 of 8 sampled videos decode",
        "ok    length      8 steps, 128 clips",
        "32 s at 4 clips/s",
        "ready to train",
    ):
        assert says in told


@pytest.mark.parametrize(
    ("overrides", "status", "says"),
    [
        (["method.name=motionmae"], 0, "ok    sample      8 of 8 sampled videos decode"),  # with a frame more each
        (["method.name=mam2"], 0, "ok    targets     a tokenizer is fitted to the videos before training"),
        (["method.name=mam2", "method.tokenizer=/nowhere.safetensors"], 2, "BAD   WeightsError: "),
        (["method.name=mam2", "method.codes=16384"], 2, "BAD   RecipeError: method.codes=16384: "),
    ],
)
def test_preflight_looks_at_what_targets_are_made_of(
    generated: Path, capsys: Output, overrides: list[str], status: int, says: str
) -> None:
    given = ["--recipe", SMOKE, *TINY, f"run.storage={generated}", "run.name=targets", "--no-cluster", *overrides]
    assert code_of(preflight.main, *given) == status
    assert says in capsys.readouterr().out


def test_preflight_goes_on_after_a_bad_finding_and_fails(generated: Path, capsys: Output) -> None:
    given = ["--recipe", SMOKE, *TINY, f"run.storage={generated}", "resources.num_workers=11", "--no-cluster"]
    assert code_of(preflight.main, *given) == 2
    told = capsys.readouterr().out
    assert "BAD   RecipeError: resources.num_workers=11" in told
    assert "ok    run folder" in told
    assert "not ready" in told


def test_preflight_stops_at_data_that_is_not_there(tmp_path: Path, capsys: Output) -> None:
    given = ["--recipe", SMOKE, *TINY, f"run.storage={tmp_path}", f"data.uri={tmp_path / 'none'}", "--no-cluster"]
    assert code_of(preflight.main, *given) == 2
    told = capsys.readouterr().out
    assert told.count("BAD ") == 1
    assert "sample" not in told


def test_the_jobs_that_prepare_data_work_one_after_the_other(tmp_path: Path, capsys: Output) -> None:
    videos, shards = tmp_path / "videos", tmp_path / "shards"
    assert (
        code_of(
            make_videos.main, "--out", str(videos), "--videos", "6", "--frames", "16", "--height", "48", "--width", "48"
        )
        == 0
    )
    assert code_of(index.main, "--data", str(videos), "--labels", "folder") == 0
    assert f"6 videos: {videos}/index.parquet" in capsys.readouterr().out
    packed = ["--data", str(videos / "index.parquet"), "--out", str(shards), "--videos-per-shard", "4"]
    assert code_of(make_shards.main, *packed) == 0
    assert f"6 videos, 0 left out: {shards}/index.parquet" in capsys.readouterr().out
    recipe = tiny_recipe(tmp_path, f"data.uri={shards}")
    from system.data.assemble import local_blocks
    from tests.small import stream_spec

    assert next(iter(local_blocks(stream_spec(recipe, 1), 0, 0)))["weight"].all()


@pytest.mark.parametrize(
    ("main", "given", "says"),
    [
        (index.main, ["--data", "x", "--workers", "0"], "argument --workers: a number from 1 is wanted, got 0"),
        (
            make_shards.main,
            ["--data", "x", "--out", "y", "--videos-per-shard", "0"],
            "argument --videos-per-shard: a number",
        ),
        (learning_check.main, ["--out", "x", "--seeds", "0"], "argument --seeds: a number from 1 is wanted, got 0"),
        (monitoring.main, ["--folder", "/none"], "--folder is a checkout of this project, got /none: there is no docs"),
        (probe.main, ["--tokens-side", "0"], "argument --tokens-side: a number from 1 is wanted, got 0"),
        (preflight.main, ["--recipe", SMOKE, "--rate", "0"], "argument --rate: needs a number above 0, got 0"),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_its_option(
    main: object, given: list[str], says: str, capsys: Output
) -> None:
    assert code_of(main, *given) == 2
    assert says in capsys.readouterr().err


def test_local_paths_of_a_submitted_job_do_not_lie_in_its_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe("runs")
    assert settled(recipe, print).run.storage == str(Path("runs").absolute())
    monkeypatch.setenv(SUBMITTED, "{}")
    monkeypatch.setenv("HOME", "/home/someone")
    said: list[str] = []
    assert settled(recipe, said.append).run.storage == "/home/someone/runs"
    assert said == ["run.storage=runs is relative: this job keeps the run in /home/someone/runs, on this machine alone"]


@pytest.mark.parametrize(("seconds", "text"), [(9, "9 s"), (61, "1 min 01 s"), (3720, "1 h 02 min")])
def test_durations_are_written_as_a_person_would(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_submitted_job_without_time_to_stop_is_told_how_to_get_it() -> None:
    assert short_stop({}) is None
    assert short_stop({SUBMITTED: "{}", STOP_WAIT: "60"}) is None
    told = short_stop({SUBMITTED: "{}"})
    assert told is not None
    assert "--runtime-env cluster/runtime-env.yaml" in told


def test_what_a_job_needs_after_its_workers_is_kept_of_its_time_to_stop() -> None:
    assert stop_grace_s({STOP_WAIT: "60"}) == 55
    assert stop_grace_s({STOP_WAIT: "3"}) == 0
    assert stop_grace_s({}) == 60


def test_a_sigterm_unwinds_a_job_and_ends_it_with_its_own_code(capsys: Output) -> None:
    closed: list[str] = []

    def job(_arguments: object) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            closed.append("what was open")
        return 0

    assert code_of(job) == 143
    assert closed
    assert "stopped by SIGTERM" in capsys.readouterr().err


def test_the_runtime_environment_is_one_that_gives_time_to_stop() -> None:
    environment = yaml.safe_load((REPOSITORY / "cluster" / "runtime-env.yaml").read_text())
    assert stop_grace_s(environment["env_vars"]) >= 30
    ignored = {line for line in (REPOSITORY / ".rayignore").read_text().splitlines() if line and line[0] != "#"}
    assert set(environment["excludes"]) <= ignored
