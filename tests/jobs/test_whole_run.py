"""A run on real and broken files: started, killed, started again, complete."""

from __future__ import annotations

import html
import json
import shutil
import stat
from math import isfinite
from pathlib import Path

import psutil
import pytest
import torch

from jobs import pretrain, status
from system import storage
from system.data.synthetic import moving_video
from system.evaluate.encoders import encoder_digest, load_encoder
from system.monitoring.series import CODES, RAYS, SERIES
from system.recipe import load_recipe
from system.train.checkpoint import complete_steps, open_checkpoint
from system.train.goodput import newest_record
from system.train.manifest import step_uri
from system.train.planned import write_plan
from system.train.probed import read_probes
from system.train.starts import read_starts
from system.train.telemetry import read_metrics
from tests.conftest import REAL_VIDEOS, RECIPES, TINY
from tests.jobs.pictures import rows_of_images
from tests.jobs.processes import job, title
from tests.jobs.scraped import OFTEN, Scraper
from tests.jobs.test_arguments import Output, code_of

pytestmark = pytest.mark.ray

OVERRIDES = [
    *TINY,
    "run.name=whole",
    "engine.name=deepspeed",
    "resources.num_workers=2",
    "train.steps=16",
    "telemetry.tensorboard=true",
    "data.max_bad_ratio=0.5",
    "telemetry.price_per_hour=20",
    # Of the three labelled videos of each class one is tested on.
    "probe.only_listed=true",
    "probe.test_share=0.34",
    # A fifth frame is decoded, and half of the hidden tokens are predicted.
    "method.name=motionmae",
    "method.decoder_mask=running_cell",
]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Real files where there are any, generated ones, and broken ones of every kind."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for path in sorted(REAL_VIDEOS.glob("*.m*")) if REAL_VIDEOS.is_dir() else []:
        shutil.copy(path, folder)
    for number in range(6):
        (folder / f"moving{number}.mp4").write_bytes(moving_video(0, number, size=(48, 48), num_frames=16)[1])
    good = (folder / "moving0.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(good[: len(good) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_bytes(b"not a video\n" * 100)
    (folder / "playlist.mp4").write_text(f"ffconcat version 1.0\nfile '{folder}/moving1.mp4'\n")
    (folder / "short.mp4").write_bytes(moving_video(0, 9, size=(48, 48), num_frames=3)[1])
    where = good.index(b"mdat") + 200  # the frames are damaged, the header says nothing of it
    (folder / "damaged.mp4").write_bytes(good[:where] + b"\xff" * (len(good) - where))
    return folder


def test_a_killed_run_goes_on_and_ends_with_everything_in_its_folder(
    tmp_path: Path, videos: Path, capsys: Output
) -> None:
    where = tmp_path / "runs"
    given = ["--recipe", str(RECIPES / "smoke.yaml"), "--address", "local", *OVERRIDES]
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"moving{number}.mp4 {number % 2}\n" for number in range(6)))
    given += [f"run.storage={where}", f"data.uri={videos}", f"probe.uri={videos}", f"probe.labels={labels}"]
    run = str(where / "whole")
    with job("jobs.pretrain", *given) as first:
        first.until(lambda: len(complete_steps(run)) > 0)
        first.kill()
        assert "starting: whole, motionmae on" in first.output
    reached = complete_steps(run)[-1]
    assert reached < 16
    promise = {"clips_per_s": 1e6, "limit": "decode", "hours": 1e-6, "clips": 256, "worker": "2 x a dream"}
    write_plan(run, load_recipe(RECIPES / "smoke.yaml", OVERRIDES), promise, {})
    home = tmp_path / "home"
    home.mkdir()
    with (
        job("jobs.pretrain", *given, HOME=str(home), RAY_AUTH_MODE=None, **OFTEN) as second,
        Scraper(second.process.pid) as scraper,
    ):
        second.until(lambda: bool(raylets(second.process.pid)))
        check_token(home, second.process.pid)
        told = second.wait()
    check_numbers(scraper, reached)
    assert "plan: 1e+06 clips/s on 2 x a dream, limited by decode; measured" in told
    assert f"resuming at step {reached}: whole" in told
    assert "complete: step 16 of 16, 256 clips" in told
    assert "Traceback" not in told
    assert len(told.splitlines()) < 40, "a storm of messages"
    check_folder(run)
    check_probes(run, told)
    check_seen_from_afar(run, capsys)
    assert code_of(pretrain.main, *given) == 0
    assert "the run whole is complete" in capsys.readouterr().out


def check_numbers(scraper: Scraper, reached: int) -> None:
    """Every series that the dashboard and the alerts read had a value while the run went on."""
    not_here = {"ray_tubelet_mfu_ratio", "ray_node_gpus_utilization", "ray_node_gram_used"}  # no GPU
    wanted = {*(series.exported for series in SERIES.values()), *RAYS} - not_here
    assert not {name for name in wanted if not scraper.newest[name]}
    for series in SERIES.values():
        if series.exported not in not_here:
            assert set(scraper.of(series.exported, "run")) == {"whole"}, series.name
    assert reached < scraper.of("ray_tubelet_step", "run")["whole"] <= 16
    assert set(scraper.of("ray_tubelet_rank_steps_total", "rank")) == {"0", "1"}
    assert set(scraper.of("ray_tubelet_stage_blocks_total", "stage")) == {"read", "decode"}
    assert set(scraper.of("ray_tubelet_decode_errors", "code")) == set(CODES)
    assert any(name.startswith("whole_") for name in scraper.of("ray_data_operator_queued_blocks", "dataset"))


def check_report(run: str, page: str, bad: set[str]) -> None:
    """The report of a job that followed on a killed one names its restart and the bad videos."""
    first, second = (job.starts[-1] for job in read_starts(run))
    assert (first.ended_s, first.from_step, first.ranks) == (None, 0, 2)
    assert (second.reached, second.why) == (16, "")
    assert second.from_step > 0
    for start in (first, second):
        (machines,) = start.ran_on or ()
        assert list(machines.ranks.values()) == [2]
        assert machines.hardware.torch == str(torch.__version__)
    assert f", torch {machines.hardware.torch}: 1 machine (" in html.unescape(page)
    assert f"restart at step {second.from_step}: it did not say: its job was killed" in page
    assert all(name in page for name in bad)


def check_seen_from_afar(run: str, capsys: Output) -> None:
    """The driver has left in the folder how the run went, and `jobs.status` says so."""
    record = newest_record(run)
    assert record is not None
    live = record.live
    assert live is not None
    assert (live.step, live.steps, live.workers, live.attempts, live.restarts) == (16, 16, 2, 1, 0)
    assert live.loss is not None
    assert live.clips_per_s is not None
    assert live.cost is not None
    assert live.left_s == 0
    assert {stage.stage for stage in live.stages} == {"decode", "train"}
    assert [stage.actors for stage in live.stages] == [1, None]
    assert code_of(status.main, "--run", run) == 0
    told = capsys.readouterr().out
    assert "complete: 16 steps are done, and no job is at work on it" in told
    assert "16/16" in told


def raylets(driver: int) -> list[psutil.Process]:
    """Return the node managers that a driver has started."""
    children = psutil.Process(driver).children(recursive=True)
    return [each for each in children if title(each).split(" ")[0].endswith("/raylet")]


def check_token(home: Path, driver: int) -> None:
    """A cluster that is started where nobody said anything about tokens asks for one that its user alone can read."""
    path = home / ".ray" / "auth_token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.environ()["RAY_AUTH_MODE"] for each in raylets(driver)] == ["token"]


def check_probes(run: str, told: str) -> None:
    """Checkpoints were probed behind the training, each at most once over both jobs, and the last one in any case."""
    rows = read_probes(run)
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps) & {4, 8, 12, 16})
    assert steps[-1] == 16
    assert "probe of step 16: top-1 knn" in told
    recipe = load_recipe(storage.local_path(run) / "recipe.yaml")
    assert rows[-1]["weights_sha256"] == encoder_digest(load_encoder(recipe, step_uri(run, 16)))
    assert rows[-1]["videos"] == {"train": 4, "test": 2}
    assert all(0 <= row["probe/knn_top1"] <= 1 for row in rows)
    summary = json.loads(storage.read(storage.join(run, "summary.json")))
    assert (summary["probe"]["newest"]["step"], summary["probe"]["failed"]) == (16, 0)
    assert list(storage.list_objects(storage.join(run, "tensorboard", "probe")))


def check_folder(run: str) -> None:
    """Everything that the summary names is there, whole, and says the same."""
    summary = json.loads(storage.read(storage.join(run, "summary.json")))
    assert (summary["status"], summary["step"], summary["slots_skipped"]) == ("complete", 16, 0)
    assert 0 < summary["plan"]["ratio"]["clips_per_s"] < 1 < summary["plan"]["ratio"]["hours"]
    assert summary["plan"]["differs"] == {}
    rejected = {each["name"]: each["reason"] for each in summary["rejected_at_indexing"]}
    bad = rejected | summary["quarantined"]
    assert {"truncated.mp4", "empty.mp4", "text.mp4", "playlist.mp4", "damaged.mp4"} <= set(bad)
    assert all(bad.values())
    assert summary["cost"]["run"] > summary["cost"]["job"] > 0
    assert not {name for name in bad if name.startswith("moving")}
    real = {path.name for path in REAL_VIDEOS.glob("*.m*")} if REAL_VIDEOS.is_dir() else set()
    assert not real & set(bad)
    assert [row["step"] for row in read_metrics(run)] == list(range(16))
    for row in read_metrics(run):
        assert isfinite(row["loss"])
        assert 0 <= row["data_wait"] <= 1
        assert row["rss_mb"] > 0
        assert row["clips_per_s"] > 0
        assert row["grad_norm"] > 0
    found = open_checkpoint(run, 16)
    assert found.state["ranks"] == 2
    assert {piece.file.partition("-g")[0] for piece in found.pieces} == {"rank_00000", "rank_00001"}
    assert rows_of_images(summary["outputs"]["picture"]) == 6
    check_report(run, storage.read(summary["outputs"]["report"]).decode(), set(bad))
    assert list(storage.list_objects(storage.join(run, "tensorboard")))
    assert storage.exists(storage.join(run, "recipe.yaml"))
