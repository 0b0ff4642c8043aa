from __future__ import annotations

import pytest

from system.train.packing import Ask, fits, shortage

TWO = [{"GPU": 2.0}]
L4 = {"accelerator_type:L4": 0.001}


def workers(count: int, gpus: float, **others: float) -> Ask:
    return Ask("workers", count, gpus, others)


def flow(count: int, gpus: float, others: dict[str, float] | None = None) -> Ask:
    return Ask("flow actors", count, gpus, others or {})


@pytest.mark.parametrize(
    ("nodes", "asks", "packs"),
    [
        (TWO, [workers(2, 0.75), flow(2, 0.25)], True),
        (TWO, [workers(2, 1), flow(1, 0.25)], False),
        # Together no more than there is, but no device has a half left.
        (TWO, [workers(2, 0.75), flow(1, 0.5)], False),
        (TWO, [workers(2, 0.6), flow(4, 0.2)], True),
        (TWO, [workers(2, 0.6), flow(5, 0.2)], False),
        ([{"GPU": 1.0}, {"GPU": 1.0}], [workers(1, 1), flow(10, 0.1)], True),
        ([{"CPU": 8.0}], [flow(1, 0.5)], False),
    ],
)
def test_a_share_lies_on_one_device(nodes: list[dict[str, float]], asks: list[Ask], packs: bool) -> None:
    assert fits(nodes, asks) is packs


def test_only_machines_with_the_accelerator_count_for_who_asks_for_it() -> None:
    plain, labelled = {"GPU": 1.0}, {"GPU": 1.0, "accelerator_type:L4": 1.0}
    assert fits([labelled, plain], [workers(1, 1), flow(2, 0.5, L4)])
    assert not fits([plain, plain], [workers(1, 1), flow(2, 0.5, L4)])
    assert not fits([plain, labelled], [workers(2, 1), flow(1, 0.5, L4)])


def test_trainers_stay_on_machines_that_have_their_custom_resource() -> None:
    train = {"GPU": 4.0, "train": 4.0}
    assert fits([train, {"GPU": 1.0}], [workers(4, 1, train=1), flow(2, 0.5)])
    assert not fits([train, {"GPU": 1.0}], [workers(5, 1, train=1)])


@pytest.mark.parametrize(
    ("trainers", "actors", "way"),
    [
        (workers(2, 1), flow(1, 0.25), "resources.train_gpus_per_worker=0.75 would fit"),
        (workers(2, 1), flow(4, 0.2), "resources.train_gpus_per_worker=0.6 would fit"),
        (workers(2, 0.75), flow(1, 0.5), "resources.mask.gpus_per_actor=0.25 would fit"),
    ],
)
def test_what_would_fit_is_told_and_fits(trainers: Ask, actors: Ask, way: str) -> None:
    assert way in (shortage(TWO, trainers, actors) or "")


def test_where_no_smaller_share_helps_none_is_told() -> None:
    told = shortage(TWO, workers(3, 1), flow(1, 0.25))
    assert told == "GPU: 3.25 wanted for 3 x 1 (workers) and 1 x 0.25 (flow actors), 2 there"


def test_enough_in_all_and_too_little_on_each_is_told_as_such() -> None:
    assert "2 wanted" in (told := shortage(TWO, workers(2, 0.75), flow(1, 0.5)) or "")
    assert "2 there, none with enough left" in told


def test_nothing_is_short_where_nothing_is_asked_for() -> None:
    assert shortage([], None, None) is None
    assert shortage(TWO, workers(2, 0.75), flow(2, 0.25)) is None
