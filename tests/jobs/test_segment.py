"""`jobs.segment` as a user meets it: from generated sequences to a results file, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from jobs import make_videos, segment
from system.data.dataset import run_uri
from system.data.davis import open_davis, read_mask
from system.data.indexed_png import object_colours, write_numbers
from system.evaluate.encoders import load, run_source
from system.evaluate.segmentation import Switches, check_switches, score, working_size
from system.models.weight_files import our_metadata, write_weights
from system.recipe import Recipe, dump_recipe
from tests.jobs.test_arguments import code_of
from tests.small import tiny_recipe

Output = pytest.CaptureFixture[str]
SMALL = ("--short-side", "192", "--multiple", "16", "--window", "3")


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("davis")
    given = ("--videos", "3", "--frames", "8", "--height", "96", "--width", "128")
    assert code_of(make_videos.main, "--masks", "--out", str(folder), *given) == 0
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The folder of a run that has not trained yet: its recipe alone."""
    recipe = tiny_recipe(tmp_path_factory.mktemp("runs"), "run.name=fresh")
    Path(run_uri(recipe)).mkdir(parents=True)
    Path(run_uri(recipe), "recipe.yaml").write_text(dump_recipe(recipe))
    return recipe


@pytest.fixture(scope="module")
def done(davis: Path, untrained: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("out") / "found"
    assert segmented(davis, out, "--run", run_uri(untrained), "--untrained", "--references") == 0
    return out, json.loads((out / "results.json").read_text())


def segmented(davis: Path, out: Path, *more: str) -> int:
    torch.set_num_threads(1)
    return code_of(segment.main, "--davis", str(davis), "--out", str(out), *SMALL, *more)


def test_objects_are_followed_better_than_by_a_mask_that_stands_still(done: tuple[Path, dict[str, Any]]) -> None:
    results = done[1]
    assert results["objects"] == 4
    still, mine, patches = (
        figures["J-Mean"]
        for figures in (results["references"]["still"], results["means"], results["references"]["patches"])
    )
    assert still < mine < patches < 1


def test_the_results_name_encoder_recipe_and_every_choice(
    done: tuple[Path, dict[str, Any]], untrained: Recipe, davis: Path
) -> None:
    results = done[1]
    assert results["encoder"]["recipe"] == dump_recipe(untrained)
    assert results["encoder"]["untrained"]
    assert len(results["encoder"]["sha256"]) == 64
    assert results["data"]["uri"] == str(davis)
    assert results["machine"]["commit"]
    wanted = {"layer": 2, "norm": True, "tubelet": "duplicate", "context": 7, "window": 3, "top_k": 5, "queue": "soft"}
    assert wanted.items() <= results["switches"].items()
    assert {"positions", "first_mask", "mask", "scored", "ties"} <= results["switches"].keys()


def test_means_are_those_of_the_objects_of_all_sequences(done: tuple[Path, dict[str, Any]]) -> None:
    sequences = done[1]["sequences"]
    each = [figures["F-Mean"] for name in sequences for figures in sequences[name]["objects"].values()]
    assert done[1]["means"]["F-Mean"] == pytest.approx(np.mean(each))
    assert sequences["cross-00"]["scored_frames"] == 6
    assert (sequences["cross-00"]["size_px"], sequences["cross-00"]["resized_px"]) == ([96, 128], [192, 256])
    assert sequences["cross-00"]["F-Mean"] == pytest.approx(np.mean(each[:2]))


def test_the_masks_that_are_written_have_the_figures_that_are_told(
    done: tuple[Path, dict[str, Any]], davis: Path
) -> None:
    out, results = done
    for sequence in open_davis(str(davis)):
        masks = [read_mask(str(out / "masks" / sequence.name / Path(uri).name)) for uri in sequence.masks]
        assert (masks[0] == read_mask(sequence.masks[0])).all()
        scores = score(sequence, masks)
        wanted = results["sequences"][sequence.name]["objects"]
        assert [each.region.mean for each in scores] == [figures["J-Mean"] for figures in wanted.values()]


def test_each_sequence_has_a_picture(done: tuple[Path, dict[str, Any]]) -> None:
    for name in done[1]["sequences"]:
        picture = cv2.imread(str(done[0] / "pictures" / f"{name}.png"))
        assert picture is not None
        assert picture.shape == (2 * 222, 6 * (round(128 * 200 / 96) + 4), 3)


def test_results_are_not_written_over(
    davis: Path, untrained: Recipe, done: tuple[Path, dict[str, Any]], capsys: Output
) -> None:
    assert segmented(davis, done[0], "--run", run_uri(untrained), "--untrained") == 2
    assert "holds a results.json already" in capsys.readouterr().err


def test_exported_weights_with_their_recipe_do_the_same_as_the_run(
    davis: Path, untrained: Recipe, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    frozen = load(run_source(run_uri(untrained), None, print, untrained=True))
    tensors = {f"encoder.{name}": value for name, value in frozen.encoder.state_dict().items()}
    write_weights(str(tmp_path / "w.safetensors"), tensors, our_metadata((3, None)))
    given = ("--weights", str(tmp_path / "w.safetensors"), "--recipe", run_uri(untrained) + "/recipe.yaml")
    assert segmented(davis, tmp_path / "out", *given, "--sequences", "right-01", "--pictures", "0", "--batch", "3") == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["encoder"]["sha256"] == done[1]["encoder"]["sha256"]
    assert results["means"]["J-Mean"] == pytest.approx(done[1]["sequences"]["right-01"]["J-Mean"], abs=1e-3)
    assert not (tmp_path / "out/pictures").exists()


def test_sliding_clips_and_other_switches_give_other_figures(
    davis: Path, untrained: Recipe, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    given = ("--run", run_uri(untrained), "--untrained", "--sequences", "right-01", "--pictures", "0")
    switches = ("--tubelet", "sliding", "--layer", "1", "--no-norm", "--queue", "hard", "--context", "2")
    assert segmented(davis, tmp_path, *given, *switches) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["means"]["J-Mean"] != done[1]["sequences"]["right-01"]["J-Mean"]
    assert "begins slot 1" in results["switches"]["clip"]


@pytest.mark.gpu
def test_a_gpu_finds_the_same_objects(
    davis: Path, untrained: Recipe, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    given = ("--run", run_uri(untrained), "--untrained", "--pictures", "0", "--device", "cuda")
    assert segmented(davis, tmp_path, *given) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["device"] == "cuda"
    assert results["means"]["J&F-Mean"] == pytest.approx(done[1]["means"]["J&F-Mean"], abs=0.02)


def test_a_folder_with_missing_parts_is_refused_before_anything_is_read(
    davis: Path, untrained: Recipe, tmp_path: Path, capsys: Output
) -> None:
    shutil.copytree(davis, tmp_path / "davis")
    for mask in sorted((tmp_path / "davis/Annotations").rglob("0000[1-3].png")):
        mask.unlink()
    assert segmented(tmp_path / "davis", tmp_path / "out", "--run", "no/such/run") == 2
    error = capsys.readouterr().err
    assert "9 x a frame without a mask" in error
    assert "cross-00/00001, cross-00/00002, cross-00/00003 and 6 more" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "either --run or --weights"),
        (("--run", "a", "--weights", "b"), "either --run or --weights"),
        (("--run", "a", "--recipe", "b"), "a run has its own"),
        (("--weights", "a", "--untrained"), "are for --run"),
        (("--run", "a", "--temperature", "0"), "--temperature is above 0"),
        (("--run", "a", "--batch", "0"), "a number from 1"),
        (("--run", "no/such/run"), "no run's folder"),
        (("--run", "no/such/run", "data.stride=2"), "no run's folder"),  # which a recipe's field may be laid over
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    davis: Path, tmp_path: Path, given: tuple[str, ...], says: str, capsys: Output
) -> None:
    assert segmented(davis, tmp_path / "out", *given) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_switches_that_do_not_fit_the_encoder_are_refused(davis: Path, untrained: Recipe, tmp_path: Path) -> None:
    frozen = load(run_source(run_uri(untrained), None, print, untrained=True))
    from dataclasses import replace

    from system.evaluate.dense_features import Dense

    assert not check_switches(Switches(), frozen)
    found = check_switches(Switches(Dense(layer=3), short_px=100), replace(frozen, has_norm=False))
    assert [sentence.split(",")[0] for sentence in found] == [
        "sides are multiples of the patch",
        "--layer is 1 to 2",
        "the weights have no encoder.norm",
    ]


def test_an_object_smaller_than_a_patch_is_told(davis: Path, untrained: Recipe, tmp_path: Path, capsys: Output) -> None:
    shutil.copytree(davis, tmp_path / "davis")
    for path in sorted((tmp_path / "davis/Annotations/480p/right-01").iterdir()):
        numbers = read_mask(str(path))
        numbers[0, 0] = 2
        path.write_bytes(write_numbers(numbers, object_colours()))
    given = ("--run", run_uri(untrained), "--untrained", "--sequences", "right-01", "--pictures", "0")
    assert segmented(tmp_path / "davis", tmp_path / "out", *given) == 0
    assert "1 of 2 objects own no patch" in capsys.readouterr().out
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["sequences"]["right-01"]["objects_without_a_patch"] == [2]


def test_frames_are_resized_as_the_public_protocol_does() -> None:
    assert working_size(480, 854, 480, 64) == (480, 832)
    assert working_size(854, 480, 480, 64) == (832, 480)
    assert working_size(480, 910, 480, 64) == (480, 896)
    assert working_size(1080, 1920, 480, 64) == (480, 832)
    assert working_size(50, 50, 96, 16) == (96, 96)
