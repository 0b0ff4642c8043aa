from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import doctor
from jobs.doctor_cluster import check_access, cluster, stages, unreachable
from system.data.synthetic import moving_video
from system.doctor.findings import Finding
from system.errors import ClusterError, SystemFault
from system.recipe import load_recipe
from system.submit.client import takes_strangers
from system.train.launch import reached
from tests.conftest import RECIPES, TINY
from tests.jobs.test_arguments import Output, code_of
from tests.jobs.test_checks import recipe
from tests.test_access import dashboard


def findings(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found = json.loads(file.read_text())["findings"]
    return {(each["part"], each["check"]): each for each in found}


@pytest.mark.slow
def test_a_doctor_looks_at_machine_and_videos_without_ray(tmp_path: Path, capsys: Output) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out.json"
    videos.mkdir()
    for number in range(4):
        (videos / f"{number}.mp4").write_bytes(moving_video(0, number, size=(48, 64), num_frames=32)[1])
    (videos / "text.mp4").write_text("not a video\n" * 100)
    ray_before = "ray" in sys.modules
    given = ["--data", str(videos), "--whole", "--seconds", "1", "--json", str(out), "data.max_bad_ratio=0.5"]
    assert code_of(doctor.main, *given) == 0
    assert ("ray" in sys.modules) == ray_before
    found = findings(out)
    assert found["environment", "pyav"]["severity"] == "ok"
    assert {part for part, _ in found} == {"environment", "data"}
    assert found["data", "readable"]["severity"] == "warning"
    assert "text.mp4" in found["data", "readable"]["what"]
    assert found["data", "resolution"]["fix"] == "data.size=48"
    assert all(each["why"] and each["fix"] for each in found.values() if each["severity"] != "ok")
    told = capsys.readouterr().out
    assert "\nenvironment\n" in told
    assert told.rstrip().endswith("ok: a run would start")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("{}/none", "there is no such folder"),
        ("{}/empty", "holds no videos"),
        ("{}/none.parquet", "there is no index; make one with"),
        ("ftp://host/videos", "storage is a local path, file:// or s3://"),
    ],
)
def test_a_place_without_videos_is_a_finding_with_a_way_out(tmp_path: Path, uri: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    given = doctor.options_from(["--seconds", "0"])
    (found,) = doctor.look_at_videos(uri.format(tmp_path), load_recipe(doctor.SMOKE, TINY), given)
    assert (found.check, found.severity) == ("videos", "error")
    assert says in found.what
    assert found.fix


@pytest.mark.parametrize(
    "given", [["--sample", "0"], ["--seconds", "-1"], ["--whole", "--sample", "3"], ["--recipe", "none.yaml"]]
)
def test_arguments_that_mean_nothing_are_refused_before_anything_is_looked_at(given: list[str], capsys: Output) -> None:
    assert code_of(doctor.main, *given) == 2
    assert capsys.readouterr().out == ""


def test_each_stage_of_a_recipe_is_told_with_what_it_holds_and_what_is_missing() -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.0, "object_store_memory": 2.0**32}, {"CPU": 1.0}]
    found = {each.check: each for each in stages(recipe(), nodes, gpu=True, fixed=True)}
    assert found["machines"].what == "2 with 9 cores, 1 GPUs and 4.0 GiB of object store"
    assert found["decode"].what == "2 to 9 actors, 1 core each"
    assert found["mask"].what == "2 to 8 actors, 0.5 GPU each"
    assert found["train"].what == "2 workers, 4 cores each and 1 GPU"
    assert found["room"].severity == "error"
    assert "CPU: 10 wanted, 9 there" in found["room"].what
    grows = {each.check: each for each in stages(recipe(), nodes, gpu=True, fixed=False)}
    assert grows["room"].severity == "warning"
    many = [{"CPU": 32.0, "GPU": 8.0}]
    assert {each.severity for each in stages(recipe(), many, gpu=True, fixed=False)} == {"ok"}


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "secret"}


def access(environment: dict[str, str], *, strangers: bool | None) -> Finding:
    return check_access("host:6379", environment, started_here=False, strangers=strangers)


@pytest.mark.parametrize(("status", "severity"), [(200, "warning"), (401, "ok"), (403, "ok"), (503, "note")])
def test_that_a_token_is_sent_does_not_say_that_it_is_asked_for(status: int, severity: str) -> None:
    with dashboard(status) as address:
        told = access(TOKEN, strangers=takes_strangers(address))
    assert told.severity == severity
    assert ("answers without a token" in told.what) == (status == 200)
    assert ("whether it is asked for was not seen" in told.what) == (status == 503)


def test_a_dashboard_on_the_heads_loopback_is_not_looked_for_on_this_machine() -> None:
    assert reached("127.0.0.1:8265", "10.0.0.1:6379", "10.0.0.2") is None
    assert reached("127.0.0.1:8265", "10.0.0.1:6379", "10.0.0.1") == "http://127.0.0.1:8265"
    assert reached("127.0.0.1:8265", "127.0.0.1:6379", "10.0.0.1") == "http://127.0.0.1:8265"
    assert reached("10.0.0.1:8265", "10.0.0.1:6379", "10.0.0.2") == "http://10.0.0.1:8265"
    assert reached("", "10.0.0.1:6379", "10.0.0.1") is None


def test_a_cluster_that_asks_for_no_token_is_a_warning_and_one_that_refuses_an_error() -> None:
    assert access({"RAY_AUTH_MODE": "disabled"}, strangers=None).severity == "warning"
    assert check_access("local", {}, started_here=True, strangers=None).severity == "ok"
    refused = unreachable("host:6379", ClusterError("no token is sent to it. Set RAY_AUTH_MODE=token"))
    assert (refused.severity, refused.fix.startswith("export RAY_AUTH_MODE=token")) == ("error", True)
    gone = unreachable("host:6379", SystemFault("could not connect"))
    assert (gone.severity, "ray status --address host:6379" in gone.fix) == ("error", True)


@pytest.mark.ray
def test_a_cluster_that_is_there_is_looked_at(ray_session: None, tmp_path: Path) -> None:
    found = {each.check: each for each in cluster(load_recipe(doctor.SMOKE, TINY), "auto")}
    assert found["room"].severity == "ok"
    assert found["machines"].what.startswith("1 with 8 cores")


def test_the_recipe_that_is_meant_where_none_is_named_is_there() -> None:
    assert doctor.SMOKE == RECIPES / "smoke.yaml"
