"""`jobs.evaluate` as a user calls it: from videos to scores, with videos that cannot be read, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from jobs import evaluate
from system.core.views import Views
from system.data.classes import write_classes
from system.data.dataset import run_uri
from system.data.index import Index
from system.data.sources import build_index
from system.data.synthetic import moving_video
from system.evaluate import extract, feature_parts
from system.evaluate.features import float_frames
from system.evaluate.multiview import default_views
from system.methods.classify import ClassifyOptions
from system.models.weight_files import our_metadata, read_weights, write_weights
from system.recipe import Recipe, dump_recipe
from system.train.fragments import WEIGHTS, Fragment
from system.train.judging import build_model
from system.train.manifest import commit, write_rank_file
from tests.data.test_viewing import SPEC, damage, seen
from tests.jobs.test_arguments import code_of
from tests.small import tiny_recipe

Output = pytest.CaptureFixture[str]

CLASSES = ("down", "left", "right", "up")
# Folders of the videos, in the order of the index; a class of the model has none.
VIDEOS = ("down/0", "down/1", "left/0", "left/1", "left/2", "right/0", "right/1")
DAMAGED, UNREADABLE = 3, 6
VIEWS = Views("dense", 3, 2)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    own = tiny_recipe(tmp_path_factory.mktemp("runs"), "run.name=tuned", "data.stride=2")
    return own.model_copy(update={"method": ClassifyOptions(classes=len(CLASSES))})


@pytest.fixture(scope="module")
def model(recipe: Recipe) -> nn.Module:
    """A classifier with random weights whose answers differ from video to video."""
    made = build_model(recipe, torch.device("cpu"))
    draw = torch.Generator().manual_seed(5)
    assert isinstance(made.head, nn.Linear)
    with torch.no_grad():
        made.head.weight.normal_(0, 4, generator=draw)
    return made.eval()


@pytest.fixture(scope="module")
def weights(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    write_weights(str(path), model.state_dict(), our_metadata((3, None), CLASSES))
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of which one is damaged in the middle and one is none any more."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(VIDEOS):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.mp4").write_bytes(moving_video(0, number, size=(48, 80), num_frames=40)[1])
    build_index(str(folder), str(folder / "index.parquet"))
    damage(folder / f"{VIDEOS[DAMAGED]}.mp4", 24)
    broken = folder / f"{VIDEOS[UNREADABLE]}.mp4"
    broken.write_bytes(b"\0" * broken.stat().st_size)
    return folder / "index.parquet"


def recipe_file(folder: Path, recipe: Recipe) -> str:
    path = folder / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    return str(path)


def given(data: Path, out: Path, *more: str) -> list[str]:
    views = ["--clips", str(VIEWS.clips), "--crops", str(VIEWS.crops)]
    return ["--data", str(data), "--labels", "folder", "--out", str(out), "--local", *views, *more]


def results_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


@pytest.fixture(scope="module")
def done(
    recipe: Recipe, weights: Path, index: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The folder of an evaluation in one go, and what says which model."""
    folder = tmp_path_factory.mktemp("done")
    which = ["--weights", str(weights), "--recipe", recipe_file(folder, recipe)]
    assert code_of(evaluate.main, *given(index, folder / "out", *which)) == 0
    return folder / "out", which


def answers(model: nn.Module, index: Path) -> list[tuple[np.ndarray, int]]:
    """What a person computes for each video: the mean of its views' softmaxes, and how many views were read."""
    out = []
    batch = seen(Index(str(index)), *range(len(VIDEOS)), spec=replace(SPEC, views=VIEWS))
    for clips, there in zip(batch["frames"], batch["seen"], strict=True):
        with torch.inference_mode():
            shares = [torch.softmax(model(float_frames(clip[None]))["logits"][0].double(), 0) for clip in clips[there]]
        out.append((torch.stack(shares).mean(0).numpy() if shares else np.zeros(4), len(shares)))
    return out


def test_each_video_is_counted_once_with_the_mean_of_the_softmaxes_of_its_views(
    done: tuple[Path, list[str]], model: nn.Module, index: Path
) -> None:
    rows, results = pq.read_table(done[0] / "predictions.parquet").to_pylist(), results_of(done[0])
    wanted = answers(model, index)
    assert [row["name"] for row in rows] == [f"{name}.mp4" for name in VIDEOS]
    assert [row["views"] for row in rows] == [count for _, count in wanted] == [6, 6, 6, 4, 6, 6, 0]
    right = []
    for row, (shares, count) in zip(rows, wanted, strict=True):
        if count:
            assert row["predicted"] == CLASSES[int(shares.argmax())]
            assert np.isclose(row["probability"], shares.max(), atol=1e-5)
            assert np.isclose(row["of_label"], shares[CLASSES.index(row["label"])], atol=1e-5)
            assert row["best"] == [CLASSES[number] for number in np.argsort(-shares)]
        right.append(bool(count) and row["predicted"] == row["label"])
    assert [row["correct"] for row in rows] == right
    assert len({row["predicted"] for row in rows if row["views"]}) > 1
    assert results["top1"] == sum(right) / 7
    assert results["top5"] == 6 / 7  # of four classes every one is among the five highest
    assert results["mean_class"] == pytest.approx((sum(right[:2]) / 2 + sum(right[2:5]) / 3 + sum(right[5:]) / 2) / 3)
    assert [each["videos"] for each in results["per_class"]] == [2, 3, 2]
    assert results["classes_without_videos"] == 1


def test_videos_that_were_read_in_part_or_not_are_reported_and_not_dropped(done: tuple[Path, list[str]]) -> None:
    results = results_of(done[0])
    assert [results[name] for name in ("videos", "whole", "partly_read", "failed")] == [7, 5, 1, 1]
    assert sorted(each["name"] for each in results["not_whole"]) == ["left/1.mp4", "right/1.mp4"]
    assert sum(results["reasons"].values()) == 2
    confusion = json.loads((done[0] / "confusion.json").read_text())
    assert confusion["not_read"] == [0, 0, 1, 0]
    assert [sum(row) + lost for row, lost in zip(confusion["counts"], confusion["not_read"], strict=True)] == [
        2,
        3,
        2,
        0,
    ]
    assert (done[0] / "confusion.png").read_bytes().startswith(b"\x89PNG")
    row = pq.read_table(done[0] / "predictions.parquet").to_pylist()[UNREADABLE]
    assert (row["predicted"], row["probability"], row["best"], row["correct"]) == (None, None, None, False)
    assert row["error"]


def test_views_alone_stand_beside_the_merged_ones(done: tuple[Path, list[str]]) -> None:
    results, parts = results_of(done[0]), pq.read_table(done[0] / "parts").to_pylist()
    each = results["single_view"]["views"]
    assert [(one["clip"], one["crop"]) for one in each] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    for view, one in enumerate(each):
        logits = [np.reshape(row["logits"], (6, 4))[view] for row in parts]
        right = [
            row["seen"][view] and CLASSES[int(own.argmax())] == row["label"]
            for row, own in zip(parts, logits, strict=True)
        ]
        assert one["top1"] == sum(right) / 7
        assert one["top5"] == sum(row["seen"][view] for row in parts) / 7  # of four classes all are within five
    assert results["single_view"]["middle"] == each[3]
    assert results["single_view"]["mean"]["top1"] == pytest.approx(np.mean([one["top1"] for one in each]))


def test_files_that_the_index_rejected_are_wrong_where_their_label_is_known(
    done: tuple[Path, list[str]], tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    for number, name in enumerate(("down/0", "left/0", "left/1")):
        (videos / name).parent.mkdir(exist_ok=True, parents=True)
        (videos / f"{name}.mp4").write_bytes(moving_video(0, number, size=(48, 80), num_frames=40)[1])
    (videos / "left" / "broken.mp4").write_bytes(b"")
    assert code_of(evaluate.main, *given(videos, tmp_path / "out", *done[1])) == 0
    results = results_of(tmp_path / "out")
    assert (results["videos"], results["data"]["rejected_by_the_index"]) == (3, 1)
    assert results["data"]["rejected_and_wrong"] == 1
    assert results["top5"] == 3 / 4
    assert [each["top5"] for each in results["single_view"]["views"]] == [3 / 4] * 6
    assert {each["class"]: each["videos"] for each in results["per_class"]} == {"down": 1, "left": 3}
    assert json.loads((tmp_path / "out" / "confusion.json").read_text())["not_read"] == [0, 1, 0, 0]


def changed_part(done: Path, out: Path, name: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Copy the folder of an evaluation, with a column of its part changed."""
    shutil.copytree(done, out)
    (part,) = (out / "parts").iterdir()
    table = pq.read_table(part)
    column = table.column_names.index(name)
    values = pa.array(change(table.column(name).to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(column, name, values), part)


def test_parts_that_do_not_hold_each_video_once_are_not_counted(
    done: tuple[Path, list[str]], index: Path, tmp_path: Path, capsys: Output
) -> None:
    changed_part(done[0], tmp_path / "out", "video_id", lambda ids: [ids[0], *ids[:-1]])
    assert code_of(evaluate.main, *given(index, tmp_path / "out", *done[1])) == 2
    assert "the parts hold 7 videos, not each of 7 once" in capsys.readouterr().err


def test_a_network_that_gives_no_numbers_is_wrong_and_names_no_class(
    done: tuple[Path, list[str]], index: Path, tmp_path: Path
) -> None:
    changed_part(done[0], tmp_path / "out", "logits", lambda rows: [[float("nan")] * 24 for _ in rows])
    assert code_of(evaluate.main, *given(index, tmp_path / "out", *done[1])) == 0
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert {(row["predicted"], row["probability"], row["correct"]) for row in rows} == {(None, None, False)}
    assert results_of(tmp_path / "out")["top1"] == 0


def test_results_name_what_they_stand_on(done: tuple[Path, list[str]], weights: Path, index: Path) -> None:
    results = results_of(done[0])
    assert results["weights"]["uri"] == str(weights)
    assert len(results["weights"]["sha256"]) == 64
    assert results["data"]["index"] == str(index)
    assert results["data"]["fingerprint"] == Index(str(index)).fingerprint
    assert results["views"]["sampling"] == "dense"
    assert (results["views"]["clips"], results["views"]["crops"]) == (3, 2)
    assert results["recipe"]["method"]["name"] == "classify"
    assert results["commit"]


def test_an_interrupted_evaluation_that_is_taken_up_again_says_what_one_in_one_go_says(
    done: tuple[Path, list[str]], index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_parts, "PART_VIDEOS", 3)
    monkeypatch.setattr(extract, "BLOCK_VIEWS", 12)  # two videos

    class Cut:
        def __init__(self, _what: str) -> None:
            pass

        def __call__(self, count: int, _total: int) -> None:
            if count >= 4:
                raise KeyboardInterrupt

    arguments = given(index, tmp_path, *done[1])
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "Counter", Cut)
        assert code_of(evaluate.main, *arguments) == 130
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["part-00000.parquet"]
    assert not (tmp_path / "results.json").exists()
    assert code_of(evaluate.main, *arguments) == 0
    assert results_of(tmp_path) == results_of(done[0])
    mine, other = (pq.read_table(folder / "predictions.parquet").to_pylist() for folder in (tmp_path, done[0]))
    for one, two in zip(mine, other, strict=True):
        assert one.keys() == two.keys()
        assert [one[name] for name in ("video_id", "predicted", "correct", "views", "error")] == [
            two[name] for name in ("video_id", "predicted", "correct", "views", "error")
        ]
        assert one["probability"] == (None if two["probability"] is None else pytest.approx(two["probability"]))


def test_a_run_of_fine_tuning_is_evaluated_with_its_classes(
    done: tuple[Path, list[str]], recipe: Recipe, model: nn.Module, index: Path, tmp_path: Path
) -> None:
    run = run_uri(recipe)
    pieces = [Fragment(name, WEIGHTS, 0, value.view(-1)) for name, value in model.state_dict().items()]
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    commit(run, 9, [write_rank_file(run, 9, 0, pieces)], shapes, {"optimizer_step": 9})
    recipe_file(Path(run), recipe)
    write_classes(run, CLASSES)
    assert code_of(evaluate.main, *given(index, tmp_path, "--run", run)) == 0
    found, results = results_of(tmp_path), results_of(done[0])
    assert (found["weights"]["step"], found["run"]) == (9, run)
    assert found["weights"]["sha256"] == results["weights"]["sha256"]
    assert found["per_class"] == results["per_class"]
    assert code_of(evaluate.main, *given(index, tmp_path / "folder", "--weights", run)) == 0
    found = results_of(tmp_path / "folder")
    assert (found["weights"]["step"], found["run"]) == (9, run)
    assert found["weights"]["uri"].endswith("step_00000009"), "what is newest later has other weights"
    assert found["recipe"] == results["recipe"]


def test_views_follow_from_the_runs_sampling() -> None:
    assert default_views("dense") == Views("dense", 5, 3)
    assert default_views("segments") == Views("segments", 2, 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "classes",
            r"2 classes of 5 videos are none of the 4 classes of .*: left, right; those are a, b, c and 1 more",
        ),
        ("count", "has a head of 4 classes, and 3 are named"),
        ("names", "calls its class 0 'down', and the list 'up'; leave --classes out"),
        ("labels", "7 of 7 videos have no label"),
        ("pretrained", "has no head.weight: it is no classifier"),
        ("method", "is of method.name=mgmae, which knows no classes"),
        ("clips", "argument --clips: a number from 1 is wanted, got 0"),
        ("recipe", r"does not fit the model\. File: encoder 48 wide x 2 blocks"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    recipe: Recipe, weights: Path, index: Path, tmp_path: Path, capsys: Output, change: str, says: str
) -> None:
    more = {"labels": ["--labels", "index"], "clips": ["--clips", "0"]}.get(change, [])
    listed = {"classes": ["a", "b", "c", "down"], "count": ["a", "b", "c"], "names": list(CLASSES[::-1])}
    if change == "classes":  # weights that say none
        tensors, weights = read_weights(str(weights)).tensors, tmp_path / "nameless.safetensors"
        write_weights(str(weights), tensors, our_metadata((3, None)))
    if change in listed:
        (tmp_path / "classes.json").write_text(json.dumps(listed[change]))
        more = ["--classes", str(tmp_path / "classes.json")]
    if change == "pretrained":
        tensors = read_weights(str(weights)).tensors
        weights = tmp_path / "encoder.safetensors"
        encoder = {name: value for name, value in tensors.items() if name.startswith("encoder.")}
        write_weights(str(weights), encoder, our_metadata((3, None)))
    if change == "method":
        recipe = tiny_recipe(tmp_path)
    if change == "recipe":
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"depth": 3})})
    which = ["--weights", str(weights), "--recipe", recipe_file(tmp_path, recipe)]
    out = tmp_path / "out"
    assert code_of(evaluate.main, *given(index, out, *which, *more)) == 2
    error = capsys.readouterr().err
    assert re.search(says, error), error
    assert "Traceback" not in error
    assert not (out / "parts").exists()
