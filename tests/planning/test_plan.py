"""Every expected figure was worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from system.data.assemble import layout_for
from system.planning.capacity import Prices, Reencoding
from system.planning.interval import stretch
from system.planning.plan import make_plan
from system.planning.rates import Rate, mean_rate
from system.planning.records import Found, Plan, Reencoded, Wishes
from system.planning.told import told
from system.recipe import load_recipe
from tests.conftest import RECIPES

# 200 and 50 clips/s of a core: 25 ms a clip, 40 clips/s. 3 s to re-encode a video of 150 million px, 2.5 times faster.
FOUND = Found(
    storage=Rate(2000.0, "fetched"),
    decode=Rate(50.0, "decoded"),
    mask=Rate(200.0, "masked"),
    step=Rate(1000.0, "stepped"),
    reencoded=Reencoded(videos=3, px_per_s=50e6, faster=2.5, bytes_ratio=0.5),
    video_px=150e6,
    stall_s=8.0,
    state_bytes=1_600_000_000,
    write_bytes_per_s=100e6,
    assumed=("nothing else",),
)
WISHES = Wishes("h100", True, 0.25, Prices(), None, 60.0)
# 8 workers, 96 decode actors at most, 4 read actors; 2,048 clips a step.
OVERRIDES = ("train.epochs=100", "resources.cpus_per_worker=4")


def plan_of(found: Found = FOUND, wishes: Wishes = WISHES, *overrides: str, videos: int = 204_800) -> Plan:
    recipe = load_recipe(RECIPES / "videomae-vitb-k400.yaml", [*OVERRIDES, *overrides])
    return make_plan(recipe, videos, layout_for(recipe, 8), found, wishes)


def test_a_run_that_decoding_limits_is_told_so_and_what_would_balance_it() -> None:
    plan = plan_of()
    now, balanced = plan.ways[:2]
    assert (plan.steps, plan.clips, plan.epochs) == (10_000, 20_480_000, 100)
    assert (now.limit, round(now.clips_per_s, 6)) == ("decode", 3840)
    assert plan.cores_per_worker == pytest.approx(31.25)
    assert balanced.units.decode_actors == 250
    assert (balanced.limit, round(balanced.clips_per_s, 6)) == ("step", 8000)
    lines = told(plan)
    assert lines[1] == (
        "decode limits the run: it gives 3,840 clips/s, and the workers would take 8,000, so they wait 52% of the time"
    )
    assert "resources.read_actors=5 (the recipe: 4), resources.decode_actors=250 (the recipe: 96)" in lines[2]


def test_hours_are_clips_over_the_rate_and_cost_what_the_prices_say() -> None:
    now = plan_of(wishes=replace(WISHES, prices=Prices(2.0, 0.05))).ways[0]
    hours = 20_480_000 / 3840 / 3600
    assert now.hours == pytest.approx(hours)
    assert now.gpu_hours == pytest.approx(8 * hours)
    assert now.core_hours == pytest.approx((96 + 8 * 4) * hours)
    assert now.cost == pytest.approx(8 * hours * 2 + 128 * hours * 0.05)
    assert plan_of().ways[0].cost is None
    assert any("--price-gpu-hour and --price-cpu-hour tell the cost" in line for line in told(plan_of()))


def test_re_encoding_is_reckoned_over_the_runs_epochs() -> None:
    # 20 ms a video and epoch before, 8 after; 3 s once: even after 250 epochs.
    plan = plan_of()
    assert isinstance(plan.reencoding, Reencoding)
    assert plan.reencoding.break_even_epochs == pytest.approx(250)
    assert not plan.reencoding.pays
    assert plan.reencoding.once_hours == pytest.approx(204_800 * 3 / 3600)
    longer = plan_of(FOUND, WISHES, "train.epochs=800").reencoding
    assert isinstance(longer, Reencoding) and longer.pays
    # 8 + 5 ms a clip: 16.25 cores a worker with a quarter to spare.
    layered = plan.ways[2]
    assert layered.units.decode_actors == 130
    assert layered.once_core_hours == plan.reencoding.once_hours
    assert layered.core_hours > layered.once_core_hours


def test_several_views_of_a_video_are_decoded_together() -> None:
    views = plan_of(FOUND, WISHES, "data.views=4").reencoding
    assert isinstance(views, Reencoding)
    assert views.before_s == pytest.approx(4 / 50)


def test_what_re_encoding_would_do_may_be_unknown() -> None:
    plan = plan_of(replace(FOUND, reencoded="the videos are in layers of the stride already"))
    assert len(plan.ways) == 2
    assert "re-encoding: the videos are in layers of the stride already" in told(plan)


def test_the_interval_of_checkpoints_follows_preemptions_and_is_no_shorter_than_writing_one() -> None:
    # One an hour; each of 8 ranks copies 1 s and writes 200 MB in 2 s. Young: sqrt(2 x 3600) = 84.9 s.
    plan = plan_of(wishes=replace(WISHES, preemptions_per_day=24.0))
    made = plan.checkpoints
    assert made is not None
    assert (made.between_s, made.stall_s, made.write_s) == (3600, 1, 2)
    assert made.young_s == pytest.approx(84.85, abs=0.01)
    assert made.daly_s == pytest.approx(84.19, abs=0.01)  # 84.85 (1 + 0.011785 / 3 + 0.000139 / 9) - 1
    step = 2048 / 8000  # of the balanced run, whose actors are advised with it
    assert made.every_steps == round(84.19 / step) == 329
    assert f"checkpoint.every_steps={made.every_steps} once it is balanced: " in "\n".join(told(plan))
    # 1.19% of stalls, half an interval and 62 s lost an hour: 1.19 + 1.18 + 1.72
    assert made.overhead == pytest.approx(0.0415, abs=0.0005)
    assert made.own_overhead > made.overhead
    slow = plan_of(replace(FOUND, write_bytes_per_s=1e6), replace(WISHES, preemptions_per_day=24.0)).checkpoints
    assert slow is not None
    assert slow.every_steps == 782  # 781 take 199.9 s


def test_preemptions_make_a_run_longer() -> None:
    calm, preempted = plan_of(), plan_of(wishes=replace(WISHES, preemptions_per_day=24.0))
    assert preempted.checkpoints is not None
    own = stretch(500 * 2048 / 3840, 1, 62, 3600) - 1  # of a run that decoding limits
    for before, after, overhead in zip(
        calm.ways,
        preempted.ways,
        (own, *[preempted.checkpoints.overhead] * 2),
        strict=True,
    ):
        assert after.hours == pytest.approx(before.hours * (1 + overhead))


def test_a_run_that_never_ends_has_no_hours_in_json() -> None:
    plan = plan_of(wishes=replace(WISHES, preemptions_per_day=1e6))
    assert any("without end" in line for line in told(plan))
    values: dict[str, Any] = json.loads(json.dumps(plan.as_dict(), allow_nan=False))
    assert values["ways"][0]["hours"] is None


def test_padding_is_no_work_done() -> None:
    recipe = load_recipe(RECIPES / "videomae-vitb-k400.yaml", [*OVERRIDES, "resources.num_workers=3"])
    layout = layout_for(recipe, 3)
    assert layout.padding > 0
    plan = make_plan(recipe, 204_800, layout, FOUND, WISHES)
    assert plan.ways[1].clips_per_s == pytest.approx(3000 * (1 - layout.padding))


def test_masks_whose_gpu_is_not_here_are_told_and_limit_nothing() -> None:
    recipe = load_recipe(RECIPES / "mgmae-vitb-k400.yaml", [*OVERRIDES, "resources.mask.gpus_per_actor=0.5"])
    plan = make_plan(recipe, 204_800, layout_for(recipe, 8), replace(FOUND, mask=None), WISHES)
    assert plan.ways[0].limit == "decode"
    assert any("needs a GPU to be measured, taken as no limit" in line for line in told(plan))


def test_the_object_store_holds_the_look_ahead() -> None:
    plan = plan_of()
    # 16 frames of 224 x 224 RGB; 256 clips of a rank's share in 8 blocks of 32; 3 blocks for each of 96 decode actors.
    assert plan.clip_bytes == 16 * 224 * 224 * 3
    assert plan.lookahead_bytes == 3 * 96 * 32 * plan.clip_bytes
    assert plan.store_bytes > plan.lookahead_bytes
    assert plan.blocks_per_s == pytest.approx(120)


def test_a_rate_is_that_of_the_mean_and_knows_its_error() -> None:
    rate, error = mean_rate([0.1, 0.3], 4)
    assert rate == pytest.approx(20)
    assert error == pytest.approx(0.5)  # the deviation is 0.1414, over the root of 2 and the mean of 0.2
    assert mean_rate([0.5], 1) == (2.0, 0.0)
