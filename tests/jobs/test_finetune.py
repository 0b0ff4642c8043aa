"""Recipes of fine-tuning, and the job that carries them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import finetune, pretrain
from system.methods.classify import ClassifyOptions
from system.recipe import Recipe, load_recipe
from system.submit.order import make_order
from tests.conftest import RECIPES, REPOSITORY
from tests.jobs.test_arguments import code_of

Output = pytest.CaptureFixture[str]
SMOKE = str(RECIPES / "finetune-smoke.yaml")
# Videos of a step, clips of each, learning rate, final one per 256 videos, layer decay, epochs, drop path, dropout of
# the head: the table of published scripts, and of ours where there is none (HMDB51; UCF101 and SSv2 in ViT-L).
TABLE = {
    "k400-vitb": (384, 2, 7.5e-4, 1e-6, 0.75, 75, 0.1, 0.0),
    "k400-vitb-mgmae": (512, 2, 1.4e-3, 1e-6, 0.75, 90, 0.1, 0.0),
    "k400-vitl": (128, 2, 1e-3, 1e-6, 0.75, 35, 0.1, 0.0),
    "ssv2-vitb": (384, 2, 7.5e-4, 1e-6, 0.75, 30, 0.1, 0.0),
    "ssv2-vitb-mgmae": (256, 2, 2e-3, 1e-6, 0.65, 25, 0.1, 0.0),
    "ssv2-vitl": (128, 2, 1e-3, 1e-6, 0.75, 35, 0.1, 0.0),
    "ucf101-vitb": (128, 2, 2.5e-4, 1e-5, 0.7, 100, 0.2, 0.5),
    "ucf101-vitl": (128, 2, 2.5e-4, 1e-5, 0.7, 100, 0.2, 0.5),
    "hmdb51-vitb": (128, 2, 2.5e-4, 1e-5, 0.7, 100, 0.2, 0.5),
    "hmdb51-vitl": (128, 2, 2.5e-4, 1e-5, 0.7, 100, 0.2, 0.5),
}


def recipe_of(name: str, *overrides: str) -> Recipe:
    return load_recipe(RECIPES / f"finetune-{name}.yaml", overrides)


def test_there_is_a_row_for_every_recipe() -> None:
    assert {path.stem for path in RECIPES.glob("finetune-*")} == {f"finetune-{name}" for name in [*TABLE, "smoke"]}


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_has_the_numbers_of_its_script(name: str) -> None:
    recipe, (videos, clips, peak, final, decay, epochs, drop_path, dropout) = recipe_of(name), TABLE[name]
    assert (recipe.slots_per_step, recipe.data.views) == (videos, clips)
    # Two clips of a video count once; the final rate is scaled by the batch as well.
    assert recipe.learning_rates() == pytest.approx((peak, final * videos / 256))
    assert isinstance(recipe.method, ClassifyOptions)
    assert (recipe.method.layer_decay, recipe.train.epochs) == (decay, epochs)
    assert (recipe.method.drop_path, recipe.method.head_dropout) == (drop_path, dropout)
    assert (recipe.model.size, recipe.run.name) == ("large" if "vitl" in name else "base", f"finetune-{name}")


@pytest.mark.parametrize("name", TABLE)
def test_what_all_scripts_have_in_common(name: str) -> None:
    recipe = recipe_of(name)
    method, train, data = recipe.method, recipe.train, recipe.data
    assert isinstance(method, ClassifyOptions)
    assert (train.betas, train.eps, train.weight_decay, train.clip_grad) == ((0.9, 0.999), 1e-8, 0.05, None)
    assert (train.warmup_epochs, train.global_batch % train.micro_batch) == (5, 0)
    assert (data.num_frames, data.stride, data.size) == (16, 4, 224)
    assert (method.mixup, method.cutmix, method.mix_share, method.switch_share) == (0.8, 1.0, 1.0, 0.5)
    assert (method.smoothing, method.erase, method.rand_augment) == (0.1, 0.25, "rand-m7-n4-mstd0.5-inc1")
    assert (method.crop_area, method.crop_ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))
    # Left and right are labels of Something-Something.
    assert (method.sampling, method.flip) == (("segments", 0.0) if "ssv2" in name else ("dense", 0.5))
    assert name[:4] in data.uri


@pytest.mark.parametrize(
    ("name", "overrides", "wanted"),
    [
        ("k400-vitb", "data.views=1 train.global_batch=512 train.base_lr=1e-3 train.epochs=100", (512, 2e-3, 100)),
        ("ssv2-vitb", "data.views=1 train.global_batch=512 train.epochs=50", (512, 1e-3, 50)),
    ],
)
def test_the_other_row_of_the_table_is_what_the_comment_says(
    name: str, overrides: str, wanted: tuple[int, float, int]
) -> None:
    comment = (RECIPES / f"finetune-{name}.yaml").read_text().replace("\n#  ", "")
    assert overrides in " ".join(comment.split())
    recipe = recipe_of(name, *overrides.split())
    assert (recipe.slots_per_step, recipe.learning_rates()[0], recipe.train.epochs) == pytest.approx(wanted)


def test_each_job_refuses_the_recipes_of_the_other_and_names_it(capsys: Output, tmp_path: Path) -> None:
    assert code_of(pretrain.main, "--recipe", SMOKE, f"run.storage={tmp_path}") == 2
    assert "has method.name=classify, which python -m jobs.finetune carries out" in capsys.readouterr().err
    assert code_of(finetune.main, "--recipe", str(RECIPES / "smoke.yaml"), f"run.storage={tmp_path}") == 2
    assert "has method.name=mgmae, which python -m jobs.pretrain carries out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_show_says_what_follows_of_a_fine_tuning(capsys: Output) -> None:
    assert code_of(finetune.main, "--recipe", str(RECIPES / "finetune-k400-vitb.yaml"), "--show") == 0
    said = capsys.readouterr().out
    assert "# learning rate: 0.00075 at most, 1.5e-06 at last; 1.782e-05 of the embedding, by layer decay\n" in said
    assert "# tokens of a clip: 1568, all of them seen\n" in said
    assert "# videos of a step: 384, 2 clips of each\n" in said


def test_a_submitted_recipe_is_carried_out_by_its_own_job() -> None:
    order = make_order(load_recipe(SMOKE), SMOKE, ["train.init_from=s3://b/runs/x"], REPOSITORY)
    assert order.entrypoint == (
        "python -m jobs.finetune --recipe jobs/recipes/finetune-smoke.yaml train.init_from=s3://b/runs/x"
    )
