"""Every expected figure was worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from system.planning.capacity import (
    Prices,
    Reencoding,
    Speeds,
    Units,
    balanced,
    capacities,
    cores_per_worker,
    cost,
    limit,
)

# 50 clips/s decoded and 200 masked by a core: 20 + 5 ms, 40 clips/s. A worker takes 1,000 clips/s.
SPEEDS = Speeds(storage=500.0, decode=50.0, mask=200.0, step=1000.0)
UNITS = Units(read_actors=4, decode_actors=96, mask_actors=0, workers=8)


def limited(speeds: Speeds, units: Units) -> tuple[str, float]:
    stage, rate = limit(speeds, units)
    return stage, round(rate, 6)


def test_masks_beside_decoding_share_its_cores() -> None:
    found = capacities(SPEEDS, UNITS)
    assert found == pytest.approx({"storage": 2000, "decode": 3840, "mask": 3840, "step": 8000})


@pytest.mark.parametrize(
    ("units", "stage", "rate"),
    [
        (UNITS, "storage", 2000),
        (replace(UNITS, read_actors=40), "decode", 3840),
        (replace(UNITS, read_actors=40, decode_actors=400), "step", 8000),
        (replace(UNITS, read_actors=40, decode_actors=400, mask_actors=30), "mask", 6000),
    ],
)
def test_the_stage_with_the_least_capacity_limits(units: Units, stage: str, rate: float) -> None:
    assert limited(SPEEDS, units) == (stage, rate)


def test_of_two_that_share_cores_the_slower_one_limits() -> None:
    assert limit(replace(SPEEDS, mask=10.0), UNITS)[0] == "mask"
    assert limit(replace(SPEEDS, decode=10.0), UNITS)[0] == "decode"


def test_a_mask_stage_of_unknown_speed_limits_nothing() -> None:
    own = replace(UNITS, read_actors=40, mask_actors=1)
    unknown = replace(SPEEDS, mask=None)
    assert capacities(unknown, own)["mask"] is None
    assert limited(unknown, own) == ("decode", 4800)
    assert limit(unknown, replace(UNITS, read_actors=40))[0] == "decode"


def test_a_worker_wants_the_cores_that_make_its_clips_and_some_to_spare() -> None:
    assert cores_per_worker(SPEEDS, UNITS, 0.0) == pytest.approx(25)  # 1,000 clips/s at 25 ms
    assert cores_per_worker(SPEEDS, UNITS, 0.2) == pytest.approx(30)
    assert cores_per_worker(SPEEDS, replace(UNITS, mask_actors=1), 0.0) == pytest.approx(20)  # masks are made elsewhere


def test_balanced_units_let_no_worker_wait() -> None:
    found = balanced(SPEEDS, UNITS, 0.2)
    assert found == Units(read_actors=20, decode_actors=240, mask_actors=0, workers=8)  # 9,600 clips/s of everything
    assert limited(SPEEDS, found) == ("step", 8000)
    assert balanced(SPEEDS, replace(UNITS, mask_actors=1), 0.2).mask_actors == 48


def test_re_encoding_pays_when_the_run_is_longer_than_its_break_even() -> None:
    # 36,000 videos, 2 s each once: 20 h. 0.5 -> 0.1 s an epoch: 4 h saved in each.
    made = Reencoding(videos=36_000, epochs=10, once_s=2.0, before_s=0.5, after_s=0.1)
    assert made.once_hours == pytest.approx(20)
    assert made.saved_hours == pytest.approx(40)
    assert made.break_even_epochs == pytest.approx(5)
    assert made.pays
    assert not replace(made, epochs=4).pays


def test_re_encoding_that_decodes_no_faster_never_pays() -> None:
    slower = Reencoding(videos=36_000, epochs=800, once_s=2.0, before_s=0.1, after_s=0.2)
    assert slower.break_even_epochs is None
    assert slower.saved_hours < 0
    assert not slower.pays


def test_hours_cost_what_the_prices_say() -> None:
    assert cost(80, 1000, Prices(2.5, 0.04)) == pytest.approx(240)
    assert cost(80, 1000, Prices(gpu_hour=2.5)) == pytest.approx(200)
    assert cost(80, 1000, Prices()) is None
