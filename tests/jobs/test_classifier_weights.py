"""From pre-training to a classifier, from a classifier to Hugging Face, and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jobs import checks, export
from system.data.classes import write_classes
from system.data.dataset import run_uri
from system.errors import WeightsError
from system.models.weight_files import write_weights
from system.recipe import Recipe, dump_recipe, load_recipe
from system.train.checkpoint import open_checkpoint
from system.train.engine import BatchShape, make_engine
from system.train.judging import build_model
from system.train.manifest import commit, step_uri, write_rank_file
from system.train.session import load_model
from system.train.torch_engine import rank_and_size
from system.train.warm_start import agreed_place, place_of, read_any, warm_start
from tests.conftest import RECIPES, TINY
from tests.jobs.test_arguments import code_of
from tests.jobs.test_weights import opened, their_input
from tests.small import tiny_recipe
from tests.train.ranks import on_ranks

Output = pytest.CaptureFixture[str]
SMALL = [each for each in TINY if "mask_ratio" not in each]
UNSAID = "nothing says of which clips its positions are: taken to be the recipe's, 4 frames of 32 px"
NAMES = ("down", "left", "right", "up", "still")


def classifier(storage: Path, name: str, *overrides: str) -> Recipe:
    given = [*SMALL, f"run.storage={storage}", f"run.name={name}", *overrides]
    return load_recipe(RECIPES / "finetune-smoke.yaml", given)


def checkpointed(recipe: Recipe, step: int, seed: int) -> Recipe:
    """Leave what a run leaves: its recipe, and a checkpoint of weights that all differ."""
    torch.manual_seed(seed)
    module = build_model(recipe, torch.device("cpu"))
    with torch.no_grad():
        for param in module.parameters():
            param.add_(0.1 * torch.randn_like(param))
    shapes = {name: list(param.shape) for name, param in module.named_parameters()}
    engine = make_engine(module, recipe.train, recipe.engine, BatchShape(4, 4))
    state = {"optimizer_step": step, "progress": {"slots": 16 * step}, "fingerprint": "0123abcd"}
    commit(run_uri(recipe), step, [write_rank_file(run_uri(recipe), step, 0, engine.fragments())], shapes, state)
    Path(run_uri(recipe), "recipe.yaml").write_text(dump_recipe(recipe))
    return recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained run and a fine-tuned one."""
    folder = tmp_path_factory.mktemp("runs")
    checkpointed(tiny_recipe(folder, "run.name=pretrained"), 2, seed=1)
    checkpointed(tiny_recipe(folder, "run.name=pretrained"), 4, seed=2)
    fine_tuned = classifier(folder, "finetuned", f"method.classes={len(NAMES)}")
    write_classes(run_uri(fine_tuned), NAMES)
    checkpointed(fine_tuned, 4, seed=3)
    return folder


def started(recipe: Recipe, names: tuple[str, ...] = NAMES) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Give a fresh model of a recipe its weights; return its state and what was taken."""
    write_classes(run_uri(recipe), names)
    known = recipe.method.model_copy(update={"classes": len(names)})
    recipe = recipe.model_copy(update={"method": known})
    module = build_model(recipe, torch.device("cpu"))
    assert recipe.train.init_from is not None
    taken = warm_start(recipe.train.init_from, recipe, module)
    assert checks.check_init_from(recipe).check == "weights"
    return dict(module.state_dict()), taken


def held(runs: Path, name: str) -> dict[str, Tensor]:
    recipe = classifier(runs, name, f"method.classes={len(NAMES)}") if name == "finetuned" else tiny_recipe(runs)
    return dict(load_model(recipe, open_checkpoint(str(runs / name), 4)).state_dict())


@pytest.mark.parametrize("start", ["pretrained", "pretrained/checkpoints/step_00000004", "hf", "released"])
def test_a_classifier_takes_a_pre_trained_encoder_without_its_last_norm(runs: Path, tmp_path: Path, start: str) -> None:
    wanted, source = held(runs, "pretrained"), runs / start
    if start == "hf":
        source = tmp_path / "hf"
        given = ("--run", str(runs / "pretrained"), "--format", "hf-pretraining", "--out", str(source))
        assert code_of(export.main, *given) == 0
    elif start == "released":
        source = tmp_path / "released.safetensors"
        write_weights(str(source), wanted, {"format": "pt"})
    after, taken = started(classifier(tmp_path, "new", f"train.init_from={source}"))
    encoder = [name for name in wanted if name.startswith("encoder.") and not name.startswith("encoder.norm.")]
    assert all(torch.equal(after[name], wanted[name]) for name in encoder)
    read = {"hf": "hf/model.safetensors", "pretrained": "pretrained/checkpoints/step_00000004"}.get(start, source.name)
    assert taken["uri"] == str(source)
    assert taken["read"].endswith(f"/{read}")
    assert taken["tensors"] == len(encoder) == len(after) - 4
    assert taken["drawn_anew"] == ["fc_norm", "head"]
    assert {"encoder.norm", "decoder.blocks", "mask_token"} <= set(taken["not_used"])
    assert (after["fc_norm.weight"] == 1).all()
    assert after["head.weight"].abs().max() < 1e-4


def test_a_run_s_folder_stands_for_its_newest_checkpoint(runs: Path) -> None:
    assert read_any(str(runs / "pretrained")).uri == step_uri(str(runs / "pretrained"), 4)
    assert read_any(str(runs / "finetuned") + "/").classes == NAMES
    assert read_any(str(runs / "pretrained")).classes is None


def agree(folder: str) -> None:
    """Rank 1 sees a newer checkpoint than rank 0, as of a run that goes on."""
    rank, _ = rank_and_size()
    seen = f"{folder}/pretrained" if rank else step_uri(f"{folder}/pretrained", 2)
    assert place_of(seen) == step_uri(f"{folder}/pretrained", 4 if rank else 2)
    assert agreed_place(seen) == step_uri(f"{folder}/pretrained", 2)


@pytest.mark.slow
def test_all_ranks_start_from_the_checkpoint_that_the_first_one_sees(runs: Path) -> None:
    on_ranks(2, agree, str(runs))


def test_a_folder_of_a_run_without_checkpoints_is_no_start(runs: Path, tmp_path: Path) -> None:
    shutil.copy(runs / "finetuned" / "recipe.yaml", tmp_path)
    with pytest.raises(WeightsError, match="holds no whole checkpoint"):
        read_any(str(tmp_path))


@pytest.mark.parametrize("form", ["run", "tubelet", "hf-classification"])
def test_a_classifier_goes_on_from_a_fine_tuned_one_of_its_classes(runs: Path, tmp_path: Path, form: str) -> None:
    wanted, source = held(runs, "finetuned"), runs / "finetuned"
    if form != "run":
        source = tmp_path / form
        assert code_of(export.main, "--run", str(runs / "finetuned"), "--format", form, "--out", str(source)) == 0
    after, taken = started(classifier(tmp_path, "same", f"train.init_from={source}"))
    assert after.keys() == wanted.keys()
    assert all(torch.equal(after[name], wanted[name]) for name in wanted)
    unsaid = [] if form == "run" else [UNSAID]
    assert (taken["drawn_anew"], taken["not_used"], taken["notes"]) == ([], [], unsaid)
    after, taken = started(classifier(tmp_path, "moved", f"train.init_from={source}"), tuple(reversed(NAMES)))
    assert torch.equal(after["head.weight"], wanted["head.weight"].flip(0))
    assert taken["notes"] == ["its classes are brought into the run's order", *unsaid]


def test_other_classes_are_refused_before_training_unless_the_head_is_drawn_anew(runs: Path, tmp_path: Path) -> None:
    start, others = f"train.init_from={runs / 'finetuned'}", ("down", "hop", "left", "run", "skip", "walk")
    says = (
        "3 of its 5 classes are not among the labels: right, still, up; 4 of the labels' 6 classes are not in it: hop,"
        " run, skip and 1 more; set method.new_head=true"
    )
    with pytest.raises(WeightsError, match=says):
        started(classifier(tmp_path, "others", start), others)
    with pytest.raises(WeightsError, match=says):  # and by the check that runs before machines are asked for
        checks.check_init_from(classifier(tmp_path, "others", start))
    after, taken = started(classifier(tmp_path, "others", start, "method.new_head=true"), others)
    assert after["head.weight"].shape == (6, 48)
    assert after["head.weight"].abs().max() < 1e-4
    assert torch.equal(after["fc_norm.bias"], held(runs, "finetuned")["fc_norm.bias"])
    assert (taken["drawn_anew"], taken["notes"]) == (["head"], ["its head is left out: method.new_head=true"])


def test_a_head_without_names_must_have_as_many_classes(runs: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "released.safetensors")
    state = held(runs, "finetuned")
    write_weights(file, {name.removeprefix("encoder."): value for name, value in state.items()}, {"format": "pt"})
    after, taken = started(classifier(tmp_path, "same", f"train.init_from={file}"))
    assert torch.equal(after["head.weight"], state["head.weight"])
    assert taken["notes"] == ["its 5 classes have no names: taken to be the run's, in their order", UNSAID]
    with pytest.raises(WeightsError, match="a head of 5 classes, whose names are not in it, and the labels are 4"):
        started(classifier(tmp_path, "fewer", f"train.init_from={file}"), NAMES[:4])


def test_before_the_labels_are_read_the_rest_of_the_weights_is_checked(runs: Path, tmp_path: Path) -> None:
    start = f"train.init_from={runs / 'finetuned'}"
    assert "tensors taken" in checks.check_init_from(classifier(tmp_path, "early", start)).says
    with pytest.raises(WeightsError, match="does not fit the model"):
        checks.check_init_from(classifier(tmp_path, "early", start, "model.depth=3"))
    assert checks.check_init_from(classifier(tmp_path, "early")).says == (
        "drawn from the seed, from scratch: train.init_from names none"
    )


@pytest.mark.parametrize(
    ("other", "clips"), [("data.num_frames=8", "8 frames of 32"), ("data.size=64", "4 frames of 64")]
)
@pytest.mark.parametrize("start", ["pretrained", "pretrained/checkpoints/step_00000004", "finetuned"])
def test_a_run_of_other_clips_is_no_start_although_its_shapes_fit(
    runs: Path, tmp_path: Path, start: str, other: str, clips: str
) -> None:
    recipe = classifier(tmp_path, "other", f"train.init_from={runs / start}", other)
    says = rf"was trained on clips of 4 frames of 32 px, and the recipe's are of {clips} px.*data.size=32"
    with pytest.raises(WeightsError, match=says):
        started(recipe)
    with pytest.raises(WeightsError, match=says):  # and by the check that runs before machines are asked for
        checks.check_init_from(recipe)


def test_pre_training_does_not_start_from_a_fine_tuned_run(runs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, f"train.init_from={runs / 'finetuned'}")
    with pytest.raises(WeightsError, match=r"a fine-tuned model has no encoder\.norm"):
        checks.check_init_from(recipe)


@pytest.mark.parametrize("names", ["4", "5"])
def test_a_fine_tuned_model_gives_the_same_logits_in_hugging_face(runs: Path, tmp_path: Path, names: str) -> None:
    given = ("--run", str(runs / "finetuned"), "--format", "hf-classification", "--transformers", names)
    assert code_of(export.main, *given, "--out", str(tmp_path / "hf")) == 0
    theirs = opened("VideoMAEForVideoClassification", tmp_path / "hf")
    recipe = classifier(runs, "finetuned", f"method.classes={len(NAMES)}")
    ours = load_model(recipe, open_checkpoint(run_uri(recipe), 4))
    frames = torch.rand(3, 3, 4, 32, 32)
    with torch.inference_mode():
        found = ours(frames)["logits"]
        wanted = theirs(their_input(frames)).logits
    assert found.std() > 0.1
    assert torch.allclose(found, wanted, atol=1e-4)
    assert theirs.config.id2label == dict(enumerate(NAMES))
    assert theirs.config.label2id["right"] == 2


def test_exported_classifiers_keep_the_names_of_their_classes_and_their_cards_say_them(
    runs: Path, tmp_path: Path, capsys: Output
) -> None:
    run = str(runs / "finetuned")
    for form in ("tubelet", "hf-classification"):
        out = tmp_path / form
        assert code_of(export.main, "--run", run, "--format", form, "--out", str(out)) == 0
        assert read_any(str(out)).classes == NAMES
        card = (out / "README.md").read_text()
        assert "| classes | 5: down, left, right, up, still |" in card
        assert "video-classification" in card
        assert "The head is not trained" not in card
    config = json.loads((tmp_path / "hf-classification" / "config.json").read_text())
    assert config["id2label"] == {str(number): name for number, name in enumerate(NAMES)}
    given = ("--run", run, "--out", str(tmp_path / "x"), "--format")
    for more, says in (
        (("hf-classification", "--labels", "5"), "a fine-tuned one has its own"),
        (("hf-pretraining",), "VideoMAE's pixel decoder, which this model is not"),
    ):
        assert code_of(export.main, *given, *more) == 2
        assert says in capsys.readouterr().err
