from __future__ import annotations

import pickle

import pytest

from system import errors
from system.errors import DecodeError, SystemFault, TubeletError, UserError
from system.storage import MissingError


@pytest.mark.parametrize("kind", [errors.RecipeError, errors.DataError, errors.ResumeError, MissingError])
def test_what_the_launcher_can_fix_ends_with_code_2(kind: type[TubeletError]) -> None:
    assert issubclass(kind, UserError)
    assert kind.exit_code == 2


@pytest.mark.parametrize("kind", [errors.StorageFault, errors.CheckpointFault, errors.StreamFault])
def test_what_a_retry_may_cure_ends_with_code_1(kind: type[TubeletError]) -> None:
    assert issubclass(kind, SystemFault)
    assert kind.exit_code == 1


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("short", "ends after frame 3")))
    assert (error.code, str(error)) == ("short", "ends after frame 3")
