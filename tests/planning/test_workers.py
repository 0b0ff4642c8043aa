from __future__ import annotations

import pytest

from system.errors import RecipeError
from system.planning.workers import MFU, asked_accelerator, reckoned, worker_of
from system.recipe import Recipe, load_recipe
from tests.conftest import RECIPES

H200 = "NVIDIA H200"


def recipe(*overrides: str) -> Recipe:
    return load_recipe(RECIPES / "videomae-vitb-k400.yaml", overrides)


def test_the_gpu_that_is_here_is_measured() -> None:
    for gpu in (None, "h200"):
        worker = worker_of(recipe(), gpu, None, H200)
        assert (worker.device, worker.name, worker.on_gpu) == ("cuda", H200, True)


def test_another_gpu_than_the_one_here_is_reckoned_and_so_is_one_whose_share_is_said() -> None:
    assert worker_of(recipe(), "a100", None, H200).accelerator is not None
    assert worker_of(recipe(), "H200", 0.5, H200).mfu == 0.5
    here_none = worker_of(recipe(), "h100", None, None)
    assert (here_none.device, here_none.name, here_none.mfu, here_none.on_gpu) == (None, "h100", MFU, True)


def test_a_recipe_for_cpus_is_measured_on_them() -> None:
    for use_gpu in ("false", "auto"):
        worker = worker_of(recipe(f"resources.use_gpu={use_gpu}"), None, None, None)
        assert (worker.device, worker.on_gpu) == ("cpu", False)
    assert worker_of(recipe("resources.use_gpu=false"), None, None, H200).device == "cpu"


@pytest.mark.parametrize(
    ("overrides", "gpu", "mfu", "says"),
    [
        ((), "h999", None, "--gpu=h999 is not known; known are b200, h200, h100-pcie, h100-nvl, h100, a100, l40s, l4"),
        ((), "v100", None, "--gpu=v100 is not known"),  # multiplies no bf16
        ((), None, 0.4, "--mfu=0.4 is of a GPU whose step is reckoned"),
        (("resources.use_gpu=false",), "h100", None, "--gpu=h100 and resources.use_gpu=false contradict each other"),
        (("engine.precision=fp32",), "h100", None, "engine.precision=fp32: the table of --gpu knows the rates of bf16"),
        ((), None, None, "the recipe trains on GPUs (resources.use_gpu=true) and there is none here"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(
    overrides: tuple[str, ...], gpu: str | None, mfu: float | None, says: str
) -> None:
    with pytest.raises(RecipeError) as error:
        worker_of(recipe(*overrides), gpu, mfu, None)
    assert str(error.value).startswith(says)


def test_no_name_is_the_gpu_that_is_here() -> None:
    assert asked_accelerator(recipe(), None, None) is None


def test_a_reckoned_rate_is_the_peaks_share_over_what_a_clip_costs() -> None:
    # ViT-B at 16 x 224 x 224 with nine of ten tokens hidden: 68 GFLOP forward, three times that in training.
    found = recipe()
    forward = found.record.flops(found.model, found.grid, found.method)
    assert forward == pytest.approx(68e9, rel=0.01)
    rate = reckoned(found, worker_of(found, "h100", 0.4, None))
    assert rate.clips_per_s == pytest.approx(0.4 * 989e12 / (3 * forward))
    assert not rate.measured
    again = recipe("engine.activation_checkpointing=true")
    assert reckoned(again, worker_of(again, "h100", 0.4, None)).clips_per_s == pytest.approx(0.75 * rate.clips_per_s)
