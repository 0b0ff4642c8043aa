from __future__ import annotations

from pathlib import Path

import pytest

from system.errors import RecipeError, ResumeError
from system.methods.base import MaskedOptions
from system.recipe import check_resume, dump_recipe, fields, load_recipe, recipe_from
from system.recipe_tree import parse_yaml
from tests.conftest import RECIPES

SMOKE = RECIPES / "smoke.yaml"
MGMAE = RECIPES / "mgmae-vitb-k400.yaml"


def refusal(*overrides: str, recipe: Path = MGMAE) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_written_out_is_the_same_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    again = recipe_from(parse_yaml(dump_recipe(recipe), "dumped"), "dumped")
    assert again.motion == (recipe.flow if recipe.needs_motion else recipe.motion)
    assert again.model_copy(update={"motion": recipe.motion}) == recipe


def test_what_auto_meant_is_kept_and_compared() -> None:
    kept = recipe_from(parse_yaml(dump_recipe(load_recipe(SMOKE)), "dumped"), "dumped")
    assert kept.motion.source == "dis"
    check_resume(kept, load_recipe(SMOKE))
    check_resume(kept, load_recipe(SMOKE, ["motion.source=dis"]))
    with pytest.raises(ResumeError, match=r"motion.source: the run has 'dis', the recipe says 'frame_difference'"):
        check_resume(kept, load_recipe(SMOKE, ["motion.source=frame_difference"]))
    still = ["method.name=videomae"]
    check_resume(load_recipe(SMOKE, still), load_recipe(SMOKE, [*still, "motion.source=frame_difference"]))


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    assert "data.strid: there is no such key; did you mean data.stride?" in refusal("data.strid=3")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("train.lr", "train.base_lr"),
        ("train.batch_size", "train.global_batch"),
        ("data.micro_batch", "train.micro_batch"),
        ("engine.zero", "engine.zero_stage"),
        ("resources.mask_actors", "resources.mask.actors"),
        ("resources.gpus_per_mask_actor", "resources.mask.gpus_per_actor"),
        ("resources.mask.gpus", "resources.mask.gpus_per_actor"),
        ("resources.mask.num_workers", "resources.num_workers"),
        ("motion.accelerator", "resources.mask.accelerator"),
    ],
)
def test_what_people_write_finds_what_it_is_called_here(written: str, meant: str) -> None:
    assert f"{written}: there is no such key; did you mean {meant}?" in refusal(f"{written}=1")


def test_a_key_of_another_method_is_refused_with_its_owner() -> None:
    text = refusal("method.name=videomae", "method.base_frame=first")
    assert "method.base_frame: there is no such key; it belongs to mgmae" in text


def test_all_problems_are_told_at_once() -> None:
    text = refusal("data.strid=3", "train.micro_batch=many", "model.size=giant")
    assert all(name in text for name in ("data.strid", "train.micro_batch", "model.size"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("method.name=foo", "method.name: is one of videomae, mgmae, motionmae"),
        ("data.size=100", "data.size=100 is not a multiple of model.patch_px=16; use 96"),
        ("data.num_frames=15", "data.num_frames=15 is not a multiple of model.tubelet_frames=2; use 14"),
        ("train.global_batch=1537", "is not a multiple of data.views=4; use 1540"),
        ("train.steps=10", "say the length once"),
        ("train.betas=[0.9,1]", "train.betas: each is at least 0 and less than 1, got [0.9, 1]; use [0.9, 0.95]"),
        ("motion.weights=null", "needs motion.weights"),
        ("method.mask_ratio=0.999", "a slot needs both visible and hidden ones"),
        ("model.heads=7", "width must be a multiple of twice the heads"),
        ("resources.decode_actors=[4,2]", "resources.decode_actors: needs 1 <= min <= max, got [4, 2]"),
        ("resources.mask.actors=[4,2]", "resources.mask.actors: needs 1 <= min <= max, got [4, 2]"),
        ("resources.mask.gpus_per_actor=2", "resources.mask.gpus_per_actor: input should be less than or equal to 1"),
        ("resources.mask=4", "resources.mask: is a section of actors, gpus_per_actor, accelerator, got 4"),
        ("resources.train_gpus_per_worker=0.5", "more than 0.5 and at most 1, got 0.5; use 0.75"),
        ("motion.device=cpu", "got resources.mask.gpus_per_actor=0.5; use resources.mask.gpus_per_actor=0"),
        ("run.name=a/b", "run.name"),
    ],
)
def test_a_rule_is_told_with_the_value_and_the_way_out(override: str, sentence: str) -> None:
    assert sentence in refusal(override)


def test_raft_below_its_smallest_size_is_refused_with_the_way_out() -> None:
    assert "use motion.size=128, which scales them" in refusal("data.size=112")


def test_overrides_reach_into_a_section_of_a_section() -> None:
    mask = load_recipe(MGMAE, ["resources.mask.actors=[1, 4]", "resources.mask.accelerator=L4"]).resources.mask
    assert (mask.actors, mask.gpus_per_actor, mask.accelerator) == ((1, 4), 0.5, "L4")
    assert load_recipe(SMOKE, ["resources.mask.actors=3"]).resources.mask.actors == 3


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["resources.mask.gpus_per_actor=0"], "got resources.mask.gpus_per_actor=0; use"),
        (["motion.source=dis"], "motion.source=dis computes on CPUs; use motion.device=auto"),
    ],
)
def test_cuda_for_flow_that_gets_no_gpu_is_refused(overrides: list[str], sentence: str) -> None:
    assert load_recipe(MGMAE, ["motion.device=cuda"]).motion.device == "cuda"
    assert sentence in refusal("motion.device=cuda", *overrides)


def test_where_flow_runs_does_not_matter_to_a_method_without_flow() -> None:
    load_recipe(MGMAE, ["method.name=videomae", "motion.device=cpu", "train.lr_counts=clips"])


def test_an_accelerator_without_a_share_of_it_is_refused() -> None:
    text = refusal("resources.mask.accelerator=L4", "resources.mask.gpus_per_actor=0")
    assert "resources.mask: accelerator=L4 names machines for their GPUs, and gpus_per_actor=0 takes none" in text


@pytest.mark.parametrize("text", ["train", "train.micro_batch", "=3", "train..x=3"])
def test_an_override_of_another_form_is_refused(text: str) -> None:
    assert "an override is section.field=value" in refusal(text)


def test_changing_the_method_keeps_what_both_have_and_names_the_rest() -> None:
    told: list[str] = []
    recipe = load_recipe(MGMAE, ["method.name=videomae", "method.mask=random"], told=told)
    assert isinstance(recipe.method, MaskedOptions) and recipe.method.mask_ratio == 0.9
    assert told == ["method.name=videomae: dropped base_frame, hole_filling, initial_map, which videomae does not have"]


def test_numbers_like_1e_4_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"extends: {SMOKE}\ntrain: {{base_lr: 1e-4, min_lr: 2E-5}}\n")
    recipe = load_recipe(path)
    assert (recipe.train.base_lr, recipe.train.min_lr) == (1e-4, 2e-5)


def test_a_missing_recipe_names_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"did you mean .*mgmae-vitb-k400\.yaml"):
        load_recipe(RECIPES / "mgmae-vitb-k40.yaml")


def test_a_circle_of_parents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(RecipeError, match="goes round in a circle"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1, 2", "is not YAML"),
        ("- 1\n", "is a mapping of sections"),
        ("run: {name: a}\ntrain: {steps: 1}\nrun: {seed: 1}\n", r"is not YAML: run is there twice.*line 3"),
        ("train: {steps: 1, steps: 2}\n", "steps is there twice"),
        ("extends: [a.yaml, b.yaml]\n", r"`extends` is the path of one recipe, got \['a.yaml', 'b.yaml'\]"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(RecipeError, match=sentence):
        load_recipe(tmp_path / "a.yaml")


def test_what_another_section_brings_is_not_there_twice(tmp_path: Path) -> None:
    text = "train: {<<: &b {steps: 7, base_lr: 1}, base_lr: 2}\nrun: {x: &a {<<: *b, steps: 8}, <<: *a}\n"
    assert parse_yaml(text, "here") == {
        "train": {"steps": 7, "base_lr": 2},
        "run": {"x": {"steps": 8, "base_lr": 1}, "steps": 8, "base_lr": 1},
    }


def test_a_recipe_is_read_as_utf_8_or_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("run: {name: h\u00e4}".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"a\.yaml cannot be read as a text in UTF-8"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize("size", [48, 112, 224])
def test_the_mask_ratios_that_a_refusal_names_are_let_through(size: int) -> None:
    small = ["motion.size=128", f"data.size={size}"]
    least, most = refusal(*small, "method.mask_ratio=0.999").rpartition("use ")[2].split(" to ")
    for ratio in (least, most):
        load_recipe(MGMAE, [*small, f"method.mask_ratio={ratio}"])


def test_the_papers_steps_and_rates_follow_from_their_recipes() -> None:
    videomae, mgmae = load_recipe(RECIPES / "videomae-vitb-k400.yaml"), load_recipe(MGMAE)
    assert videomae.learning_rates() == pytest.approx((1.2e-3, 8e-5))  # 1.5e-4 x 2048 / 256
    assert mgmae.learning_rates() == pytest.approx((1.5e-3, 1.5e-5))  # 1e-3 x 384 videos / 256
    assert mgmae.steps(240_000) == 125_000
    assert mgmae.warmup_steps(240_000) == 12_500


def test_fields_of_a_nested_section_are_named_and_may_change_on_their_own() -> None:
    known = {name: (value, is_free) for name, value, is_free in fields(load_recipe(MGMAE))}
    assert known["resources.mask.actors"] == (8, True)
    assert known["resources.mask.gpus_per_actor"] == (0.5, True)
    assert known["motion.device"] == ("auto", True)
    assert "resources.mask" not in known


def test_a_resumed_run_may_change_how_but_not_what() -> None:
    before = load_recipe(SMOKE)
    check_resume(before, load_recipe(SMOKE, ["train.micro_batch=2", "resources.num_workers=1", "run.storage=/else"]))
    moved = ["resources.mask.actors=[2,9]", "resources.mask.gpus_per_actor=0.25", "resources.mask.accelerator=L4"]
    check_resume(before, load_recipe(SMOKE, [*moved, "resources.train_gpus_per_worker=0.75"]))
    check_resume(before, load_recipe(SMOKE, ["data.uri=/elsewhere/index.parquet"]))
    with pytest.raises(ResumeError, match=r"data.uri: the run has"):
        check_resume(before, load_recipe(SMOKE, ["data.uri=/elsewhere"]))
    with pytest.raises(
        ResumeError, match=r"(?s)exists with another recipe.*data.stride: the run has 2, the recipe says 4"
    ):
        check_resume(before, load_recipe(SMOKE, ["data.stride=4"]))
