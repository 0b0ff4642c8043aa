"""From a run to files that others open, and from others' files into a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs import checks, export, import_weights
from jobs.settled import settled
from system.core.losses import mean_squared
from system.core.masks import tube_visible
from system.core.targets import IMAGENET_MEAN, IMAGENET_STD, normalized_pixels
from system.data.dataset import run_uri
from system.errors import WeightsError
from system.evaluate.encoders import load, run_source, weights_source
from system.models.blocks import gather_tokens
from system.models.weights import to_hugging_face
from system.recipe import Recipe, dump_recipe, resume_conflicts
from system.train.batch import split_tokens
from system.train.checkpoint import complete_steps, open_checkpoint
from system.train.manifest import step_uri
from system.train.session import load_model
from system.train.telemetry import read_metrics
from system.train.warm_start import read_any
from tests.conftest import RECIPES
from tests.jobs.test_arguments import code_of
from tests.small import tiny_recipe
from tests.train.ranks import train_here

Output = pytest.CaptureFixture[str]
NORMALIZED = "method.normalize_target=true"


@pytest.fixture(scope="module")
def trained(generated: Path) -> Recipe:
    """A run of four steps, as `pretrain` leaves it."""
    torch.set_num_threads(1)
    recipe = tiny_recipe(generated, "run.name=trained", NORMALIZED, "resources.num_workers=1", "train.steps=4")
    train_here(recipe)
    Path(run_uri(recipe), "recipe.yaml").write_text(dump_recipe(recipe))
    return recipe


def exported(recipe: Recipe, out: Path, *more: str) -> Path:
    assert code_of(export.main, "--run", run_uri(recipe), "--out", str(out), *more) == 0
    return out


def test_losses_that_were_not_finite_do_not_count_on_a_card(tmp_path: Path) -> None:
    losses = [9.0, 1.0, None, 3.0, None, None, 5.0]
    rows = [{"step": step, "loss": loss, "loss/codes": None, "lr": 1.0} for step, loss in enumerate(losses)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert export.last_losses(str(tmp_path), 6) == {"loss, mean of 2 finite ones of the last 5 logged steps": 2.0}
    assert export.last_losses(str(tmp_path), 2) == {"loss, mean of the last 2 logged steps": 5.0}
    assert export.last_losses(str(tmp_path), 0) == {}


def opened(name: str, folder: Path) -> Any:
    """Open a folder as its readers do; every key must be there, and none too many."""
    import transformers

    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def weights_of(recipe: Recipe) -> dict[str, torch.Tensor]:
    return dict(load_model(recipe, open_checkpoint(run_uri(recipe), 4)).state_dict())


def their_input(frames: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((frames - mean) / std).transpose(1, 2)


@pytest.mark.parametrize("names", ["4", "5"])
def test_an_exported_model_computes_in_hugging_face_what_it_computes_here(
    trained: Recipe, tmp_path: Path, names: str
) -> None:
    folder = exported(trained, tmp_path / "hf", "--format", "hf-pretraining", "--transformers", names)
    theirs = opened("VideoMAEForPreTraining", folder)
    ours = load_model(trained, open_checkpoint(run_uri(trained), 4))
    grid = trained.grid
    frames = torch.rand(2, 3, 4, 32, 32)
    visible = tube_visible(np.random.default_rng(0).random((2, grid.slots, grid.places), np.float32), grid, 0.5)
    shown, hidden = (torch.from_numpy(index) for index in split_tokens(visible))
    with torch.inference_mode():
        predicted = ours(frames, shown, hidden)["pixels"]
        loss = mean_squared(predicted, gather_tokens(normalized_pixels(frames, grid), hidden)).mean()
        out = theirs(their_input(frames), bool_masked_pos=torch.from_numpy(~visible))
    assert torch.allclose(predicted, out.logits, atol=1e-5)
    assert float(loss) == pytest.approx(float(out.loss), abs=1e-5)
    assert theirs.videomae.encoder.layer[0].attention.attention.query.bias.abs().sum() > 0


def test_an_exported_classifier_has_the_encoder_and_a_head_that_knows_nothing(trained: Recipe, tmp_path: Path) -> None:
    folder = exported(trained, tmp_path / "hf", "--format", "hf-classification", "--labels", "7")
    theirs = opened("VideoMAEForVideoClassification", folder)
    ours = load_model(trained, open_checkpoint(run_uri(trained), 4)).encoder
    frames = torch.rand(2, 3, 4, 32, 32)
    with torch.inference_mode():
        everything = torch.arange(trained.grid.tokens).expand(2, -1)
        x = ours.patch_embed(frames, everything) + ours.positions[everything]  # type: ignore[operator, index, union-attr]
        features = ours.blocks.run(x)  # type: ignore[operator, union-attr]
        assert torch.allclose(theirs.videomae(their_input(frames)).last_hidden_state, features, atol=1e-5)
        assert theirs(their_input(frames)).logits.tolist() == [[0.0] * 7] * 2
    assert theirs.config.num_labels == 7
    assert (theirs.fc_norm.weight == 1).all()


def test_the_processor_beside_a_model_has_imagenet_s_statistics(trained: Recipe, tmp_path: Path) -> None:
    from transformers import VideoMAEImageProcessor

    folder = exported(trained, tmp_path / "hf", "--format", "hf-pretraining")
    processor = VideoMAEImageProcessor.from_pretrained(folder)
    grey = [np.full((32, 32, 3), 128, np.uint8)] * 4
    pixels = processor(grey, return_tensors="pt").pixel_values
    assert pixels.shape == (1, 4, 3, 32, 32)
    wanted = (128 / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    assert torch.allclose(pixels[0, 0, :, 5, 5], wanted, atol=1e-5)


@pytest.mark.parametrize("form", ["tubelet", "hf-pretraining"])
def test_what_is_exported_is_read_back_to_the_last_bit(trained: Recipe, tmp_path: Path, form: str) -> None:
    found = read_any(str(exported(trained, tmp_path / "out", "--format", form)))
    wanted = weights_of(trained)
    assert found.tensors.keys() == wanted.keys()
    assert all(torch.equal(found.tensors[name], wanted[name]) for name in wanted)
    assert found.heads == (3, 3)


def test_the_card_says_what_the_weights_are(trained: Recipe, tmp_path: Path) -> None:
    card = (
        exported(trained, tmp_path / "out", "--format", "hf-classification", "--labels", "3") / "README.md"
    ).read_text()
    state = open_checkpoint(run_uri(trained), 4).state
    losses = [row["loss"] for row in read_metrics(run_uri(trained))]
    for says in (
        "arxiv.org/abs/2308.10794",
        "| steps | 4 of 16 clips |",
        "| clips seen | 64 |",
        state["fingerprint"],
        f"| loss, mean of the last 4 logged steps | {sum(losses) / 4:.6g} |",
        "**The head is not trained**",
        "VideoMAEForVideoClassification.from_pretrained",
        "Not in it: ",
        "normalize_target: true",
    ):
        assert says in card


def test_bad_arguments_and_steps_end_with_one_sentence(trained: Recipe, tmp_path: Path, capsys: Output) -> None:
    run, out = run_uri(trained), str(tmp_path / "out")
    for arguments, says in (
        (("--run", run, "--format", "hf-classification"), "--labels N"),
        (("--run", run, "--format", "tubelet", "--step", "3"), "has checkpoints of the steps [4], --step 3 is none"),
        (("--run", str(tmp_path), "--format", "tubelet"), "is no run's folder: there is no recipe.yaml in it"),
        (("--run", "none", "--storage", str(tmp_path), "--format", "tubelet"), f"{tmp_path}/none is no run's folder"),
    ):
        assert code_of(export.main, *arguments, "--out", out) == 2
        assert says in capsys.readouterr().err
    assert not Path(out).exists()
    exported(trained, Path(out), "--format", "tubelet")
    assert code_of(export.main, "--run", run, "--format", "tubelet", "--out", out) == 2
    assert "holds a model.safetensors already" in capsys.readouterr().err


def test_weights_are_imported_checked_and_cut_to_the_encoder(trained: Recipe, tmp_path: Path, capsys: Output) -> None:
    source, out = step_uri(run_uri(trained), 4), str(tmp_path / "x.safetensors")
    given = ["--weights", source, "--out", out, "--recipe", str(RECIPES / "smoke.yaml")]
    assert code_of(import_weights.main, *given) == 2
    assert "encoder 48 wide x 2 blocks of 2x16x16, decoder 24 x 1" in (error := capsys.readouterr().err)
    assert "encoder 192 wide x 4 blocks" in error
    assert not Path(out).exists()
    fits = ["model.width=48", "model.heads=3", "model.depth=2", "data.num_frames=4", "data.size=32"]
    assert code_of(import_weights.main, *given, "--encoder-only", *fits) == 0
    told = capsys.readouterr().out
    assert "a checkpoint: encoder 48 wide x 2 blocks of 2x16x16, no pixel decoder, 30 tensors" in told
    assert "drawn anew, since the file has none: decoder.blocks" in told
    assert all(name.startswith("encoder.") for name in read_any(out).tensors)


def test_lost_biases_are_told(trained: Recipe, tmp_path: Path, capsys: Output) -> None:
    from safetensors.torch import save_file

    lost = {name: 0 * value if name.endswith("_bias") else value for name, value in weights_of(trained).items()}
    save_file(to_hugging_face(lost), tmp_path / "model.safetensors")
    given = ["--weights", str(tmp_path), "--out", str(tmp_path / "x.safetensors")]
    assert code_of(import_weights.main, *given) == 0
    assert "all query and value biases are zero" in capsys.readouterr().out


def fresh(trained: Recipe, name: str, init_from: str | Path, *more: str) -> Recipe:
    """Another run, of another method, over the same videos."""
    given = ["method.name=videomae", "resources.num_workers=1", "train.steps=2", f"train.init_from={init_from}"]
    return tiny_recipe(trained.run.storage, f"run.name={name}", NORMALIZED, *given, "checkpoint.every_steps=1", *more)


def test_a_fresh_run_starts_from_weights_and_a_resumed_one_does_not_read_them_again(
    trained: Recipe, tmp_path: Path
) -> None:
    folder = exported(trained, tmp_path / "out", "--format", "hf-pretraining")
    recipe = fresh(trained, "warm", folder, "train.base_lr=0", "train.min_lr=0", "run.stop_at_step=1")
    assert checks.check_init_from(trained).says == "drawn from the seed"
    assert checks.check_init_from(recipe).says.startswith("weights of Hugging Face's VideoMAE, 49 tensors taken")
    train_here(recipe)
    after, wanted = dict(load_model(recipe, open_checkpoint(run_uri(recipe), 1)).state_dict()), weights_of(trained)
    assert all(torch.equal(after[name], wanted[name]) for name in wanted)
    kept = json.loads(Path(run_uri(recipe), "warm_start.json").read_text())
    assert (kept["uri"], kept["drawn_anew"], kept["not_used"]) == (str(folder), [], [])
    shutil.rmtree(folder)
    assert "is not read again" in checks.check_init_from(recipe).says
    goes_on = recipe.model_copy(update={"run": recipe.run.model_copy(update={"stop_at_step": None})})
    assert train_here(goes_on).step == 2


def test_weights_that_do_not_fit_stop_a_fresh_run_before_its_first_step(trained: Recipe, tmp_path: Path) -> None:
    source = step_uri(run_uri(trained), 4)
    for more, says in (
        (["model.depth=3"], "does not fit the model"),
        (["model.heads=4"], "has 3 heads where the recipe's model.heads is 4: .*; set model.heads=3"),
        (["model.decoder_heads=2"], "set model.decoder_heads=3"),
    ):
        recipe = fresh(trained, "cold", source, *more)
        for start in (train_here, checks.check_init_from):
            with pytest.raises(WeightsError, match=says):
                start(recipe)
    assert complete_steps(run_uri(recipe)) == []
    for uri in (tmp_path / "none.pth", tmp_path / "none"):
        with pytest.raises(WeightsError, match=str(uri)):
            checks.check_init_from(fresh(trained, "cold", uri))
    with pytest.raises(WeightsError, match="storage is a local path, file:// or s3://"):
        checks.check_init_from(fresh(trained, "cold", "gs://bucket/x.pth"))


def test_a_damaged_checkpoint_is_no_start(trained: Recipe, tmp_path: Path) -> None:
    run = shutil.copytree(run_uri(trained), tmp_path / "copy")
    file = next(run.glob("checkpoints/*/rank_00000.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    recipe = fresh(trained, "damaged", step_uri(str(run), 4))
    with pytest.raises(WeightsError, match="does not match its checksum"):
        train_here(recipe)


def test_what_a_run_started_from_is_a_part_of_its_identity(trained: Recipe) -> None:
    assert resume_conflicts(fresh(trained, "one", "a.pth"), fresh(trained, "one", "b.pth")) == [
        "train.init_from: the run has 'a.pth', the recipe says 'b.pth'"
    ]


def test_a_relative_path_to_weights_means_the_same_in_every_process(trained: Recipe) -> None:
    for given, wanted in (("a.pth", str(Path("a.pth").absolute())), ("s3://b/a.pth", "s3://b/a.pth"), (None, None)):
        train = trained.train.model_copy(update={"init_from": given})
        assert settled(trained.model_copy(update={"train": train}), print).train.init_from == wanted


def test_the_frozen_encoder_of_a_run_is_that_of_its_newest_checkpoint_or_of_the_step_that_is_asked_for(
    trained: Recipe,
) -> None:
    run, weights = run_uri(trained), weights_of(trained)
    found = load(run_source(run, None, print))
    assert all(torch.equal(value, weights[f"encoder.{name}"]) for name, value in found.encoder.state_dict().items())
    assert found.said["step"] == 4
    assert found.said == load(run_source(run, 4, print)).said
    assert found.said["sha256"] != load(run_source(run, None, print, untrained=True)).said["sha256"]
    with pytest.raises(WeightsError, match=r"has checkpoints of the steps .* 3 is none of them"):
        load(run_source(run, 3, print))


def test_a_checkpoint_that_is_given_as_weights_has_the_grid_of_its_run(trained: Recipe) -> None:
    found = load(weights_source(step_uri(run_uri(trained), 4), None, print))
    assert found.said == load(run_source(run_uri(trained), 4, print)).said
    assert found.grid == trained.grid
