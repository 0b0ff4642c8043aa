from __future__ import annotations

from dataclasses import replace

import pytest

from system.data.index import VideoRow
from system.doctor.findings import Finding
from system.doctor.survey import Clip, Survey
from system.doctor.videos import findings
from system.planning.records import Reencoded
from system.recipe import Recipe, load_recipe
from tests.conftest import RECIPES

ROW = VideoRow(
    0, "/v/a.mp4", "a.mp4", 0, 10**6, "", None, "h264", 340, 256, 300, 30.0, 10.0, [*range(0, 300, 30)], [], [], []
)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(RECIPES / "videomae-vitb-k400.yaml")  # 16 frames, stride 4, 224 px


def healthy() -> Survey:
    rows = [replace(ROW, video_id=number, name=f"{number}.mp4") for number in range(10)]
    return Survey("/v", 10, 10, rows, {row.name: Clip(12.0) for row in rows}, index_videos=10)


def found(survey: Survey, recipe: Recipe, reencoded: Reencoded | str | None = None) -> dict[str, Finding]:
    return {each.check: each for each in findings(survey, recipe, reencoded)}


def test_healthy_videos_are_well_in_every_respect(recipe: Recipe) -> None:
    told = found(healthy(), recipe)
    assert set(told) == {"videos", "readable", "resolution", "durations", "key frames", "motion", "duplicates"}
    assert {each.severity for each in told.values()} == {"ok"}
    assert told["key frames"].what.startswith("one in 30 frames")


@pytest.mark.parametrize(("bad", "severity"), [(1, "warning"), (2, "error")])
def test_unreadable_videos_are_an_error_where_a_run_would_stop(recipe: Recipe, bad: int, severity: str) -> None:
    survey = healthy()
    survey.bad = {f"{number}.mp4": ("open", "no container") for number in range(bad)}
    told = found(survey, recipe)["readable"]
    assert told.severity == severity
    assert told.what.startswith(f"{bad} of 10 cannot be read ({bad} open)\n0.mp4: no container")
    assert ("data.max_bad_ratio=0.24" in told.fix) == (severity == "error")


@pytest.mark.parametrize(("torn", "bad", "severity"), [(20, 0, "warning"), (20, 5, "warning"), (8000, 5, "error")])
def test_what_the_listing_shows_of_all_videos_is_not_held_against_a_sample_of_them(
    recipe: Recipe, torn: int, bad: int, severity: str
) -> None:
    survey = replace_survey(healthy(), total=100_000 - torn, looked_at=64, torn=torn, index_videos=None)
    survey.bad = {f"{number}.mp4": ("truncated", "cut off") for number in range(torn + bad)}
    told = found(survey, recipe)["readable"]
    assert told.severity == severity
    assert told.what.startswith(f"{torn} of 100000 by the listing, and {bad} of 64 looked at cannot be read (")
    assert ("data.max_bad_ratio=0.19" in told.fix) == (severity == "error")


def test_a_whole_look_counts_what_is_torn_as_one_of_all(recipe: Recipe) -> None:
    survey = replace_survey(healthy(), total=10, looked_at=10, torn=1)
    survey.bad = {"a.mp4": ("truncated", "cut off"), "b.mp4": ("open", "no container")}
    told = found(survey, recipe)["readable"]
    assert told.what.startswith("2 of 11 cannot be read (1 truncated, 1 open)")
    assert "data.max_bad_ratio=0.22" in told.fix


def test_an_index_that_knows_other_videos_is_told_with_the_command(recipe: Recipe) -> None:
    told = found(replace_survey(healthy(), index_videos=7), recipe)["videos"]
    assert (told.severity, told.fix) == ("warning", "python -m jobs.index --data /v")


def replace_survey(survey: Survey, **values: object) -> Survey:
    for name, value in values.items():
        setattr(survey, name, value)
    return survey


def test_small_large_short_still_and_sparse_videos_are_told(recipe: Recipe) -> None:
    survey = healthy()
    survey.videos = [replace(row, width=160, height=120, num_frames=40, duration_s=1.3) for row in survey.videos]
    told = found(survey, recipe)
    assert (told["resolution"].severity, told["resolution"].fix) == ("warning", "data.size=112")
    assert told["durations"].severity == "warning"
    assert "10 of 10 are shorter than a clip of 64 frames" in told["durations"].what
    assert told["durations"].fix == "data.stride=2 data.num_frames=16"
    survey = healthy()
    survey.videos = [replace(row, width=1920, height=1080, key_frames=[0]) for row in survey.videos]
    survey.clips["3.mp4"] = survey.clips["4.mp4"] = Clip(0.4)
    told = found(survey, recipe)
    assert "--layout short-gop --short-side 258" in told["resolution"].fix
    assert (told["key frames"].severity, "--layout short-gop" in told["key frames"].fix) == ("note", True)
    assert (told["motion"].severity, "2 of 10 clips stand still" in told["motion"].what) == ("warning", True)


def test_copies_are_told_with_what_removes_them(recipe: Recipe) -> None:
    survey = replace_survey(healthy(), same=[["1.mp4", "a copy.mp4", "z.mp4"]])
    told = found(survey, recipe)["duplicates"]
    assert told.severity == "warning"
    assert told.what == "2 videos have the bytes of another one: 1.mp4 = a copy.mp4 = z.mp4"
    assert told.fix == "rm '/v/a copy.mp4' /v/z.mp4"


@pytest.mark.parametrize("copy", ["shard.tar/clip.mp4", "a\x1b[2J.mp4", "a\nb.mp4"])
def test_rm_is_left_out_where_it_could_not_work_as_it_is_shown(recipe: Recipe, copy: str) -> None:
    fix = found(replace_survey(healthy(), same=[["1.mp4", copy]]), recipe)["duplicates"].fix
    assert fix.startswith("remove ")
    assert "rm " not in fix


def test_a_name_of_several_lines_is_told_on_one(recipe: Recipe) -> None:
    name = "a.mp4\nfix: rm -rf /"
    survey = replace_survey(healthy(), bad={name: ("open", "no container")}, same=[["1.mp4", name]])
    survey.clips[name] = Clip(0.0)
    told = found(survey, recipe)
    for check in ("readable", "duplicates", "motion"):
        assert "\nfix" not in told[check].what
        assert "a.mp4\\nfix" in told[check].what


def test_places_in_commands_are_quoted(recipe: Recipe) -> None:
    survey = replace_survey(healthy(), uri="/my videos; true", index_videos=7)
    survey.videos = [replace(row, key_frames=[0]) for row in survey.videos]
    told = found(survey, recipe)
    assert told["videos"].fix == "python -m jobs.index --data '/my videos; true'"
    shards = "--data '/my videos; true' --out '/my videos; true-shards'"
    assert shards in told["key frames"].fix


def test_what_reencoding_gains_is_told_and_worth_a_command_if_it_is_much(recipe: Recipe) -> None:
    fast = found(healthy(), recipe, Reencoded(4, 60e6, 6.1, 0.8))["re-encoding"]
    assert "decode 6.1 times as fast and have 0.80 times the bytes" in fast.what
    assert fast.fix == "python -m jobs.make_shards --data /v --out /v-shards --layout layered --stride 4"
    assert found(healthy(), recipe, Reencoded(4, 60e6, 1.1, 2.0))["re-encoding"].severity == "ok"
    assert "too long" in found(healthy(), recipe, "the sampled videos are too long")["re-encoding"].what
