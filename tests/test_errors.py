from __future__ import annotations

import pickle

import pytest

from system import errors
from system.errors import DecodeError, DivergedFault, HangFault, SystemFault, TubeletError, UserError
from system.storage import MissingError


@pytest.mark.parametrize("kind", [errors.RecipeError, errors.DataError, errors.ResumeError, MissingError])
def test_what_the_launcher_can_fix_ends_with_code_2(kind: type[TubeletError]) -> None:
    assert issubclass(kind, UserError)
    assert kind.exit_code == 2


@pytest.mark.parametrize("kind", [errors.StorageFault, errors.CheckpointFault, errors.StreamFault])
def test_what_a_retry_may_cure_ends_with_code_1(kind: type[TubeletError]) -> None:
    assert issubclass(kind, SystemFault)
    assert kind.exit_code == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (DecodeError("short", "ends after frame 3"), "ends after frame 3"),
        (HangFault("rank 1 waited for rank 0", 7), "rank 1 waited for rank 0"),
        (DivergedFault("not finite in 2 steps", {5: "inf", 6: "nan"}), "not finite in 2 steps"),
    ],
)
def test_errors_survive_the_way_between_processes(error: TubeletError, says: str) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == says
    assert vars(again) == vars(error)
