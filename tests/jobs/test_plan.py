"""The capacity plan as a user sees it; neither Ray nor a GPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import plan
from jobs.cli import run
from jobs.settled import settled
from system import storage
from system.train.planned import compared
from tests.conftest import RECIPES, REPOSITORY, TINY
from tests.small import index_elsewhere, tiny_recipe

SMOKE, VITB = str(RECIPES / "smoke.yaml"), str(RECIPES / "videomae-vitb-k400.yaml")
Output = pytest.CaptureFixture[str]


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run(plan.main, arguments)
    return int(str(ended.value.code))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--recipe", VITB, "--gpu", "h999"], "--gpu=h999 is not known; known are"),
        (["--recipe", VITB, "--mfu", "0.4"], "--mfu=0.4 is of a GPU whose step is reckoned"),
        (["--recipe", VITB, "--gpu", "h100", "--mfu", "1.4"], "needs a share above 0 and at most 1, got 1.4"),
        (["--recipe", SMOKE, "--gpu", "h100"], "--gpu=h100 and resources.use_gpu=false contradict each other"),
        (["--recipe", SMOKE, "--price-gpu-hour", "2"], "--price-gpu-hour and resources.use_gpu=false contradict"),
        (["--recipe", VITB, "--price-cpu-hour", "-2"], "needs a number of 0 or more, got -2"),
        (["--recipe", VITB, "--seconds", "0"], "needs a number above 0, got 0"),
        (["--recipe", VITB, "--restart-seconds", "9"], "--restart-seconds says nothing without --preemptions-per-day"),
        (["--recipe", VITB, "--index", "/videos"], "--index=/videos is no index.parquet; make one with"),
        (["--recipe", VITB, "--index", "/i.parquet", "data.uri=/videos"], "--index and data.uri=... both say where"),
        (["--recipe", VITB, "--index", "/none.parquet", "--gpu", "l4"], "/none.parquet: there is no index; make one"),
        (["--recipe", VITB, "--gpu", "l4", "data.uri=/videos"], "/videos has no index; make one with"),
    ],
)
def test_mistakes_are_one_sentence(capsys: Output, arguments: list[str], says: str) -> None:
    assert code_of(*arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert error.count("\n") == 1


def test_mistakes_are_told_without_torch_and_ray() -> None:
    script = (
        "import sys; from jobs.plan import main\n"
        "try: main(sys.argv[1:])\n"
        "except Exception as error: print(type(error).__name__)\n"
        "assert not {'torch', 'ray', 'deepspeed', 'av'} & set(sys.modules), 'heavy'"
    )
    given = ["--recipe", VITB, "--gpu", "h999"]
    done = subprocess.run(
        [sys.executable, "-c", script, *given], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "RecipeError"), done.stderr


def test_an_index_none_of_whose_videos_can_be_read_is_refused(generated: Path, tmp_path: Path, capsys: Output) -> None:
    text = tmp_path / "text.mp4"
    text.write_bytes(b"no video\n" * 1000)
    index = index_elsewhere(tiny_recipe(generated), tmp_path / "own.parquet", dict.fromkeys(range(16), text))
    tiny = [each for each in TINY if not each.startswith("data.uri=")]
    given = ["--recipe", SMOKE, *tiny, "--index", index, f"run.storage={tmp_path}", "--seconds", "1"]
    assert code_of(*given) == 2
    assert re.search(r"DataError: none of \d+ sampled videos can be decoded; the first: ", capsys.readouterr().err)


def test_a_plan_is_told_written_and_kept_for_the_run(
    generated: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "plan.json"
    given = [f"run.storage={generated}", "run.name=planned", "resources.decode_actors=2"]
    flags = [
        "--seconds",
        "1",
        "--preemptions-per-day",
        "24",
        "--price-cpu-hour",
        "0.05",
        "--json",
        str(where),
        "--keep",
    ]
    index = index_elsewhere(tiny_recipe(generated), tmp_path / "own.parquet", {})
    monkeypatch.chdir(tmp_path)  # a path is relative to where either of the two jobs starts
    tiny = [each for each in TINY if not each.startswith("data.uri=")]
    assert code_of("--recipe", SMOKE, *tiny, "--index", "own.parquet", *given, *flags) == 0
    told = capsys.readouterr().out
    for says in (
        "planned: 128 clips, 8 epochs of 16 videos, on 2 x a CPU core",
        "limits the run",
        "each worker wants",
        "re-encoding",
        "as the recipe stands for ",
        "with a preemption each 1 h they, restarts and lost work add",
        "of work by Daly",
        "memory: ",
        "assumed:",
        f"kept for the run: {generated}/planned/plan.json",
    ):
        assert says in told
    made: dict[str, Any] = json.loads(where.read_text())
    assert [stage["stage"] for stage in made["stages"]] == ["storage", "decode", "mask", "step"]
    assert all(stage["rate"]["clips_per_s"] > 0 for stage in made["stages"])
    assert made["checkpoints"]["every_steps"] >= 1
    assert made["reencoded"]["videos"] >= 1 and made["reencoded"]["faster"] > 0
    recipe = settled(tiny_recipe(generated, *given[1:], f"data.uri={index}"), print)
    run_folder = storage.join(str(generated), "planned")
    assert [name for name in Path(run_folder).iterdir() if name.name.startswith(".plan-")] == []
    rate = made["ways"][0]["clips_per_s"]
    measured = {"clips_per_s": rate / 2, "data_wait": 0.0, "clips": 128, "run_s": 2 * 128 / rate}
    found = compared(run_folder, recipe, measured)
    assert found is not None
    assert found["ratio"]["clips_per_s"] == pytest.approx(0.5)
    assert found["differs"] == {}


@pytest.mark.slow
def test_a_gpu_that_is_not_here_is_reckoned_from_the_table(generated: Path, capsys: Output) -> None:
    given = [*TINY, f"run.storage={generated}", "resources.use_gpu=true", "engine.precision=bf16"]
    flags = ["--seconds", "1", "--gpu", "h100", "--mfu", "0.5", "--price-gpu-hour", "3"]
    assert code_of("--recipe", SMOKE, *given, *flags) == 0
    told = capsys.readouterr().out
    assert "on 2 x h100" in told
    assert "assumed: 989 TFLOP/s dense bf16 (NVIDIA H100 data sheet, SXM) at an MFU of 50%" in told
    assert "a step of h100 is reckoned: --mfu=0.5 of the peak" in told
