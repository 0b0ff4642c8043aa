"""`jobs.embed` and `jobs.probe`, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from jobs import embed, probe
from jobs.features import views_from
from system.core.views import Views
from system.data.dataset import run_uri
from system.data.index import Index
from system.data.synthetic import encode
from system.errors import RecipeError
from system.models.weight_files import our_metadata, write_weights
from system.recipe import dump_recipe
from system.train.judging import build_model
from system.train.warm_start import heads_of
from tests.conftest import RECIPES, TINY
from tests.jobs.test_arguments import code_of
from tests.small import tiny_recipe
from tests.train.ranks import train_here

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def weights(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe(generated)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    write_weights(
        str(path), build_model(recipe, torch.device("cpu")).state_dict(), our_metadata(heads_of(recipe.model))
    )
    return path


@pytest.fixture(scope="module")
def index(generated: Path) -> Path:
    (found,) = (generated / "synthetic").rglob("index.parquet")
    return found


def given(weights: Path, *more: str) -> list[str]:
    return ["--recipe", str(RECIPES / "smoke.yaml"), "--weights", str(weights), "--local", *more, *TINY]


def halves(folder: Path, index: Path) -> tuple[str, str]:
    """Write lists of every second video, labelled by the parity of its number."""
    lists = []
    for part in range(2):
        lines = [
            f"{video.uri} {video.video_id // 2 % 2}\n" for video in Index(str(index)) if video.video_id % 2 == part
        ]
        path = folder / f"list{part}.txt"
        path.write_text("".join(lines))
        lists.append(str(path))
    return lists[0], lists[1]


def test_embed_writes_a_row_for_every_video_and_says_what_it_did(
    weights: Path, index: Path, tmp_path: Path, capsys: Output
) -> None:
    out = tmp_path / "out"
    arguments = given(weights, "--videos", str(index.parent), "--out", str(out), "--views", "2x1")
    assert code_of(embed.main, *arguments) == 0
    told = capsys.readouterr().out
    assert f"16 videos, dense 2x1 views each: 48 numbers a video, {out}/parts" in told
    rows = pq.read_table(out / "parts").to_pylist()
    assert [row["label"] for row in rows] == [video.label for video in Index(str(index))]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["weights"] == str(weights)
    assert manifest["recipe"]["model"]["width"] == 48
    assert len(manifest["identity"]["weights_sha256"]) == 64
    assert "last LayerNorm" in manifest["features"]
    assert code_of(embed.main, *arguments) == 0


def test_embed_takes_a_run_and_refuses_clips_that_it_was_not_trained_on(
    generated: Path, index: Path, tmp_path: Path, capsys: Output
) -> None:
    recipe = tiny_recipe(generated, "run.name=embedded", "resources.num_workers=1", "train.steps=1")
    train_here(recipe)
    Path(run_uri(recipe), "recipe.yaml").write_text(dump_recipe(recipe))
    out = tmp_path / "out"
    arguments = ["--run", "embedded", "--storage", str(generated), "--videos", str(index), "--out", str(out), "--local"]
    assert code_of(embed.main, *arguments, "data.num_frames=8") == 2
    assert "are for clips of 4 frames of 32 px" in capsys.readouterr().err
    assert code_of(embed.main, *arguments, "--step", "7") == 2
    assert "has checkpoints of the steps [1], --step 7 is none of them" in capsys.readouterr().err
    assert not out.exists()
    assert code_of(embed.main, *arguments, "data.stride=3") == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["identity"]["clip"] == "4 frames, stride 3, 32 px"
    assert manifest["weights"].endswith("embedded/checkpoints/step_00000001")


def test_a_folder_without_an_index_gets_one_in_the_output(
    weights: Path, index: Path, tmp_path: Path, capsys: Output
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for number, video in enumerate(list(Index(str(index)))[:3]):
        (videos / f"{number}.mp4").write_bytes(Path(video.uri).read_bytes())
    (videos / "empty.mp4").write_bytes(b"")
    arguments = given(weights, "--videos", str(videos), "--out", str(out))
    assert code_of(embed.main, *arguments, "--labels", "folder") == 2
    assert "3 of 3 videos have no label: 0.mp4, 1.mp4, 2.mp4; they lie in no folder" in capsys.readouterr().err
    assert code_of(embed.main, *arguments) == 0
    assert "1 files are no videos that can be read and not in the index" in capsys.readouterr().out
    assert not (videos / "index.parquet").exists()
    assert len(Index(str(out / "index.parquet")).texts("name")) == 3
    others = videos.rename(tmp_path / "others")
    assert code_of(embed.main, *given(weights, "--videos", str(others), "--out", str(out))) == 2
    assert f"index.parquet is of {videos}, not of {others}; use another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--views", "5"], "views are CLIPSxCROPS"),
        (["--batch", "0"], "argument --batch: a number from 1 is wanted, got 0"),
        (["--step", "3"], "--step and --untrained are for --run"),
        (["--run", "a"], "say which network"),
    ],
)
def test_wrong_arguments_are_refused(
    weights: Path, index: Path, tmp_path: Path, capsys: Output, more: list[str], says: str
) -> None:
    assert code_of(embed.main, *given(weights, "--videos", str(index), "--out", str(tmp_path / "out"), *more)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_views_are_clips_times_crops() -> None:
    assert views_from("5x3", "dense") == Views("dense", 5, 3)
    assert views_from("2X1", "segments") == Views("segments", 2, 1)
    for wrong in ("5", "0x3", "ax3", "1x2x3"):
        with pytest.raises(RecipeError):
            views_from(wrong, "dense")


def test_probe_tells_apart_what_an_untrained_encoder_sees_and_names_what_it_stands_on(
    weights: Path, tmp_path: Path, capsys: Output
) -> None:
    draw = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 4)):
        for label, level in (("dark", 40), ("light", 200)):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(count):
                frames = draw.integers(level - 30, level + 30, (8, 48, 48, 3), dtype=np.uint8)
                (tmp_path / part / label / f"{number}.mp4").write_bytes(encode(iter(frames), 48, 48))
    (tmp_path / "test" / "dark" / "broken.mp4").write_bytes(b"")
    out = tmp_path / "out"
    sets = [f"--{part}={tmp_path / part}" for part in ("train", "test")]
    labels = ["--train-labels", "folder", "--test-labels", "folder"]
    arguments = given(weights, *sets, *labels, "--out", str(out), "--probes", "linear,attentive,knn")
    assert code_of(probe.main, *arguments) == 2
    assert "test: 1 of 9 videos cannot be read, more than data.max_bad_ratio=0.1" in capsys.readouterr().err
    assert not (out / "test.index.parquet").exists()
    assert code_of(probe.main, *arguments, "--test-views", "2x1", "data.max_bad_ratio=0.2") == 0
    result = json.loads((out / "probe.json").read_text())
    assert result["classes"] == ["dark", "light"]
    assert (result["sets"]["train"]["videos"], result["sets"]["test"]["videos"]) == (16, 8)
    assert result["sets"]["test"]["views"] == "dense 2x1"
    assert [result["sets"][name]["rejected_by_the_index"] for name in ("train", "test")] == [0, 1]
    found = result["probes"]
    # All but the one that the index rejected.
    assert [found["linear"]["top1"], found["attentive"]["top1"], found["knn"]["1"]["top1"]] == [8 / 9] * 3
    # Of 16 views: 16 steps an epoch, and all at once.
    assert (found["linear"]["batch"], found["attentive"]["batch"]) == (1, 16)
    assert list(found["knn"]) == ["1", "5", "10"]
    told = capsys.readouterr().out
    assert "16 training and 8 test videos of 2 classes" in told
    assert "1 test files are not in the index, as unreadable; 1 of them have a label here and are counted" in told
    assert "attentive  top-1 88.9%" in told


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("same", "8 videos are in both sets: "),
        ("uncovered", "8 of 16 videos of the index are not in the list; complete it, or say --only-listed"),
        ("strange", "1 classes of 8 videos are none of the 2 classes of"),
        ("tokens", "tokens of 2 x 2 places take 0.0 GB, more than --tokens-gb=0; use fewer videos or views"),
        ("side", "--tokens-side divides the 2 rows of tokens: [1, 2], got 3"),
    ],
)
def test_probe_refuses_what_does_not_fit_before_any_work(
    weights: Path, index: Path, tmp_path: Path, capsys: Output, change: str, says: str
) -> None:
    train, test = halves(tmp_path, index)
    if change == "strange":
        Path(test).write_text("".join(line.split()[0] + " 7\n" for line in Path(test).read_text().splitlines()))
    lists = ["--train-labels", train, "--test-labels", train if change == "same" else test]
    more = [] if change == "uncovered" else ["--only-listed"]
    more += {"tokens": ["--tokens-gb", "0"], "side": ["--tokens-side", "3"]}.get(change, [])
    more += ["--probes", "attentive"] if change in ("tokens", "side") else []
    out = tmp_path / "out"
    arguments = given(weights, "--train", str(index), "--test", str(index), *lists, "--out", str(out), *more)
    assert code_of(probe.main, *arguments) == 2
    assert says in capsys.readouterr().err
    assert not list(out.glob("t*"))
