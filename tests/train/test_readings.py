from __future__ import annotations

from dataclasses import replace
from typing import Any

from system.data.notes import Note
from system.monitoring.series import CODES, SERIES
from system.train.goodput import PARTS, Attempt, account
from system.train.progress import Progress, StepCounts
from system.train.readings import Facts, Moment, readings
from system.train.standing import Standing

FACTS = Facts(steps=100, videos=16, every_steps=10, bad_limit=0.1)
VALUES: dict[str, Any] = {
    "step": 11,
    "step_s": 2.0,
    "data_wait": 0.25,
    "clips_per_s": 8.0,
    "loss": 0.5,
    "grad_norm": 1.5,
    "lr": 1e-4,
    "mfu": None,
    "rss_mb": 2.0,
}


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def set(self, name: str, value: float, **labels: str) -> None:
        assert {"run", *labels} == set(SERIES[name].labels)
        assert SERIES[name].by == "driver"
        self.values[name, *labels.values()] = value

    def add(self, name: str, amount: float, **labels: str) -> None:
        raise AssertionError("the driver counts nothing")


def moment(silent_s: float = 1.0, hours: float = 1.0) -> Moment:
    job = account(0.0, 3600 * hours, [Attempt(began=0.0, told_at=3600 * hours, seconds={"compute": 1800 * hours})])
    return Moment(3600.0, silent_s, 30.0, 1, job, job)


def values_of(values: dict[str, Any], at: Moment, facts: Facts = FACTS) -> dict[tuple[str, ...], float]:
    kept = Kept()
    for reading in readings(facts, values, at):
        kept.set(reading.name, reading.value, **dict([reading.label] if reading.label else []))
    return kept.values


def test_quarantined_videos_are_counted_by_what_was_wrong_and_the_others_are_zero() -> None:
    standing = Standing(ranks=2, kept=0)
    notes = [Note(0, 3, 0, "corrupt", "damaged"), Note(1, 5, 0, "corrupt", "damaged"), Note(2, 7, 0, "open", "no")]
    after = Progress().after(StepCounts(8, substituted=2, skipped=1), notes)
    found = values_of({**VALUES, "standing": standing.after(after)}, moment())
    errors = {code: found["tubelet_decode_errors", code] for code in CODES}
    assert errors == {**dict.fromkeys(CODES, 0), "corrupt": 2, "open": 1}
    assert found["tubelet_quarantined_videos",] == 3
    assert (found["tubelet_slots",], found["tubelet_slots_substituted",], found["tubelet_slots_skipped",]) == (8, 2, 1)
    assert found["tubelet_bad_ratio",] == 3 / 8


def test_trainers_that_are_silent_have_no_throughput() -> None:
    assert values_of(VALUES, moment(silent_s=20.0))["tubelet_clips_per_second",] == 8.0
    assert values_of(VALUES, moment(silent_s=31.0))["tubelet_clips_per_second",] == 0.0
    slow = {**VALUES, "step_s": 60.0}
    assert values_of(slow, moment(silent_s=100.0))["tubelet_clips_per_second",] == 8.0


def test_before_the_first_step_there_are_the_numbers_of_the_job() -> None:
    found = values_of({}, moment())
    assert found["tubelet_silence_seconds",] == 1.0
    assert found["tubelet_checkpoint_age_seconds",] == 30.0
    assert ("tubelet_loss",) not in found
    assert sum(found["tubelet_job_seconds", part] for part in PARTS) == 3600.0
    assert found["tubelet_goodput_ratio",] == 0.5


def test_what_is_not_known_is_not_exported() -> None:
    found = values_of(VALUES, moment())
    assert ("tubelet_mfu_ratio",) not in found
    assert ("tubelet_cost",) not in found


def test_probes_are_told_from_the_first_one_on_and_those_that_failed_are_counted() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 4, "probe/knn_top1": 0.25, "probe/linear_top1": 0.5},
        {"step": 8, "error": "no"},
    ]
    found = values_of({}, replace(moment(), probes=rows))
    assert {key: value for key, value in found.items() if "probe" in key[0]} == {
        ("tubelet_probe_step",): 4,
        ("tubelet_probe_top1_ratio", "knn"): 0.25,
        ("tubelet_probe_top1_ratio", "linear"): 0.5,
        ("tubelet_probes_failed",): 1,
    }
    assert not [name for name, *_ in values_of({}, moment()) if "probe" in name]


def test_a_run_costs_its_price_for_all_of_its_hours() -> None:
    facts = Facts(steps=100, videos=16, every_steps=10, bad_limit=0.1, price_per_hour=20.0)
    assert values_of(VALUES, moment(hours=1.5), facts)["tubelet_cost",] == 30.0
